"""What an exercise is, how an answer is judged, and the record of what a reader solved. The exercises themselves
lie in `soralab.exercises`."""
