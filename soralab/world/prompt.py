"""What is said about a prompt that cannot be filmed."""


class PromptError(ValueError):
    """A prompt that cannot be read: its message is one line, and a notebook shows that line alone."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of the way through the code, which says nothing about the prompt."""
        return [str(self)]
