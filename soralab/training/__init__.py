"""Training: one loop (`loop`), the average of the weights (`ema`), batches ahead of time (`data`), profiles.

    from soralab.training.loop import TrainConfig, train
"""
