"""Chapter 02's exercises: the causal mask, masked attention, a shift of place, a step of a beam."""

ORDER = ("causal_mask", "attention", "shift", "beam_step")
