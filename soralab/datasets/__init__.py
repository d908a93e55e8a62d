"""Real public data sets, read from the reader's own folder: nothing is downloaded here."""
