"""Chapter 17's exercises: the online softmax, the tiles that a causal mask leaves, the gradients without a softmax."""

ORDER = ("take_in", "visits", "gradients")
