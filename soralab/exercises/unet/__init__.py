"""Chapter 01's exercises: which tiles fit, crop and concatenate, the weight map of Eq. (2), mirrored edges."""

ORDER = ("valid_sizes", "crop_and_concat", "weight_map", "mirror_tile")
