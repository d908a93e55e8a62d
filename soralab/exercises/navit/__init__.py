"""Chapter 07's exercises: the packer, dropping before packing, one vector for each picture, fractional positions."""

ORDER = ("pack", "drop_and_pack", "pooled", "fractional")
