"""`soralab session`: the leader's guide to a chapter."""

from __future__ import annotations

from soralab.command.arguments import count, verb


def declare(verbs):
    """Its arguments; returns its parser."""
    session = verb(verbs, "session", "print the leader's guide to a chapter")
    session.add_argument("number", type=count(1, 17), help="of the chapter, 1 to 17 (0, the road map, has none)")
    session.add_argument("--part", help="only that: read, 60, 90, questions, roles, board, 30 or handout")
    return session


def run(options) -> None:
    """Print it, or a part of it."""
    from soralab.sessions.guide import show

    print(show(options.number, options.part))
