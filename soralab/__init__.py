"""soralab: the code behind the course "Road to Sora".

A file at the top of this package is a paper; a folder is machinery that several papers share.
Importing `soralab` imports none of them: `from soralab import sora` does.
"""

__version__ = "0.1.0"
