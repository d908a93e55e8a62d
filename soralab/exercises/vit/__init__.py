"""Chapter 03's exercises: patches in order, positions for another size, how far a head looks, what a ViT holds."""

ORDER = ("patch_embed", "interpolate_positions", "attention_distance", "count_parameters")
