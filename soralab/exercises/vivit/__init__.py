"""Chapter 08's exercises: tubelets, a start from a picture reader, what four models cost, heads of two kinds."""

ORDER = ("tubelets", "from_pictures", "multiply_adds", "half_and_half")
