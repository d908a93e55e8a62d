"""Chapter 05's exercises: the nearest code, who moves in Eq. (3), a codebook of averages, what a prior may see."""

ORDER = ("nearest_code", "gradients", "move_codebook", "causal_mask")
