"""Chapter 17's exercises: an average that goes on, tiles of a causal mask, a tile's gradients, a kernel in Triton."""

ORDER = ("take_in", "visits", "gradients", "moving_window")
