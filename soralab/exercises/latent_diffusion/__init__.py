"""Chapter 06's exercises: a step of DDIM, guidance, cross-attention, and the weight of the adversary."""

ORDER = ("guided", "ddim_step", "cross_attention", "adaptive_weight")
