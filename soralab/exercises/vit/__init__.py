"""Chapter 03's exercises: E as a convolution, positions for another size, how far a head looks, what a ViT holds."""

ORDER = ("as_convolution", "interpolate_positions", "attention_distance", "count_parameters")
