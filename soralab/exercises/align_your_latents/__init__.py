"""Chapter 10's exercises: a layer over time beside one of pictures, frames that are told, windows, filling a film."""

ORDER = ("beside", "told", "windows", "filled")
