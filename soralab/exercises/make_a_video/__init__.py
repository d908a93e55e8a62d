"""Chapter 14's exercises: two kernels as one, frames for a rate, a film that goes on, one noise for all frames."""

ORDER = ("one_kernel", "at_rate", "longer", "enlarged")
