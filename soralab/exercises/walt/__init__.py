"""Chapter 11's exercises: an inflated kernel, the order of the windows, no film at the last step, a model's memory."""

ORDER = ("inflate_kernel", "window_order", "no_film_left", "with_memory")
