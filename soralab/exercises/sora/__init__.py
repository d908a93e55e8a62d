"""Chapter 16's exercises: patches back into a film, a picture brought to life, and a step of the sampler that films."""

ORDER = ("uncut", "put_back", "solver_step")
