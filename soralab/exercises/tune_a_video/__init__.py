"""Chapter 15's exercises: who sees whom, what is trained, attention over time, the way back to noise."""

ORDER = ("may_attend", "trained", "along_time", "inverted")
