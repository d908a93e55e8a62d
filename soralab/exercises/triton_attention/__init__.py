"""Chapter 17's exercises: an average that goes on, the tiles that a causal mask leaves, gradients of a tile, a kernel in
Triton."""

ORDER = ("take_in", "visits", "gradients", "moving_window")
