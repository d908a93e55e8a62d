"""What each chapter measures with its trained model, and writes on the checkpoint's card."""
