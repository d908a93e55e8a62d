"""What a notebook says in words, for the tests that hold its sentences with numbers to a card."""

import json
import re
from pathlib import Path

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


def prose_of(name: str) -> str:
    """The text cells of notebooks/NAME.ipynb, links as their words; none may still wait for a number."""
    cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    assert "MEASURED" not in text
    return re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", text)
