"""Chapter 09's exercises: x_0 within bounds, what a stage is given, pictures among films, two steps in one."""

ORDER = ("bounded", "given", "pictures", "one_for_two")
