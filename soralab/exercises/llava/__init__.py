"""Chapter 13's exercises: what the tower hands over, where it goes, what of it is learnt, how an answer is written."""

ORDER = ("grid", "spliced", "targets", "written")
