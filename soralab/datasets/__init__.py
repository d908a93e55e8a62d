"""What chapters learn from, a file a data set.

`cells`, `what_and_where`, `still_captions` and `stills` are drawn by code from the world or beside it; the others are
real public sets, read from the reader's own folder: nothing is downloaded here.
"""
