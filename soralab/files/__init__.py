"""Files in and out: atomic writes (`atomic`), checkpoints and their cards (`checkpoints`), films (`films`), held the
right way up (`upright`), damage in what others made (`damage`), one process at a time in a folder (`lock`).

The lowest folder of the package: it imports nothing else of soralab. torch is imported only by the functions
that need it, so that a command can refuse a bad path before the seconds that importing torch takes.
"""
