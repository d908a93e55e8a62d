"""Chapter 04's exercises: the loss, where a text's feature stands, a classifier made of texts, a batch in pieces."""

ORDER = ("symmetric_loss", "text_feature", "ensemble", "batch_in_pieces")
