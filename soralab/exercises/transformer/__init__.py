"""Chapter 02's exercises: the causal mask, masked attention, a shift of place, the smoothed loss, a step of a beam."""

ORDER = ("causal_mask", "attention", "shift", "smoothed_loss", "beam_step")
