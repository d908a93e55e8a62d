"""What a reader may do with the course, and how it is cited: stated, and in agreement with the package."""

from pathlib import Path

import yaml

import soralab
from soralab.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[1]
REAL = {"mnist": "MNIST", "isbi": "ISBI 2012", "flickr8k": "Flickr8k", "multi30k": "Multi30k",
        "pets": "Oxford-IIIT pets", "ucf101": "UCF101"}  # fmt: skip


def test_citation_changes_and_licence_agree_with_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == soralab.__version__ and citation["license"] == "Apache-2.0"
    assert citation["authors"] == [{"name": "soralab contributors"}]
    assert f"## {soralab.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "soralab contributors" in licence and "[name of copyright owner]" not in licence


def test_the_terms_of_every_real_data_set_are_stated():
    told = (ROOT / "data" / "README.md").read_text(encoding="utf-8").split("## Licence")[1]
    for name, title in REAL.items():
        assert (ROOT / "soralab" / "datasets" / f"{name}.py").exists() and f"| {title} " in told
    drawn = {"cells", "what_and_where", "native_sizes", "still_captions", "stills", "frames", "order", "recaptions",
             "instructions", "question_forms", "short_films", "__init__"}
    assert {path.stem for path in (ROOT / "soralab" / "datasets").glob("*.py")} == drawn | set(REAL)


def test_no_checkpoint_learnt_from_real_data():
    """So their licence is the course's own."""
    for module in set(RECIPES.values()):
        text = (ROOT / "soralab" / "recipes" / f"{module}.py").read_text(encoding="utf-8")
        assert not any(name in text for name in REAL), module
