"""Counts in words, for messages."""


def so_many(count: int, thing: str) -> str:
    """`count` things, of which one has no s: "1 frame", "2 frames", "0 frames"."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
