"""Chapter 04's exercises: texts that are right twice, finding by text, an ensemble, a batch that does not fit."""

ORDER = ("loss_with_twins", "recall_at_1", "ensemble", "batch_in_pieces")
