"""Chapter 06's exercises: guidance place by place, DDIM with lots, cross-attention in heads, the adversary's weight."""

ORDER = ("guided", "ddim_step", "cross_attention", "adaptive_weight")
