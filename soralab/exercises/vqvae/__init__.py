"""Chapter 05's exercises: the nearest code, the loss and its stops, a codebook of averages, what a prior may see."""

ORDER = ("nearest_code", "quantise", "move_codebook", "causal_mask")
