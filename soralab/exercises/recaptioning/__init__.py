"""Chapter 12's exercises: one lot for two questions, precision and recall, a caption's log P, the nucleus of a draw."""

ORDER = ("called", "precision_recall", "log_p", "nucleus")
