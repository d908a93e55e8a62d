"""Chapter 02's exercises: the causal mask, the sinusoids, label smoothing, the length penalty."""

ORDER = ("causal_mask", "sinusoid", "label_smoothing", "length_penalty")
