"""What a reader may do with the course, and how it is cited: stated, and in agreement with the package."""

import re
from pathlib import Path

import pytest
import yaml

import soralab
from soralab.command import main
from soralab.datasets.registry import DATASETS
from soralab.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[1]


def test_citation_changes_and_licence_agree_with_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == soralab.__version__ and citation["license"] == "Apache-2.0"
    assert citation["authors"] == [{"name": "soralab contributors"}]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {soralab.__version__}, {citation['date-released']}\n" in changes
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "soralab contributors" in licence and "[name of copyright owner]" not in licence


def test_every_chapters_paper_is_cited():
    """By its number at arXiv, as README's table has it."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["references"]
    wanted = re.findall(r"https://arxiv.org/abs/[\d.]+", readme.split("## The chapters")[1].split("## The command")[0])
    assert len(set(wanted)) > 15
    assert sorted(set(wanted)) == sorted(paper["url"] for paper in cited if "url" in paper)
    for paper in cited:
        assert paper["title"] and paper["authors"] and 2014 < paper["year"] < 2027
        if "url" in paper:  # its number begins with the year in which it was put there
            assert paper["url"].rsplit("/", 1)[1][:2] == str(paper["year"])[2:], paper["title"]


def test_versions_of_the_change_log_can_be_named(capsys):
    versions = re.findall(r"^## (\d+)\.(\d+)\.(\d+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    numbers = [tuple(map(int, version)) for version in versions]
    assert numbers == sorted(set(numbers), reverse=True) and ".".join(versions[0]) == soralab.__version__
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"soralab {soralab.__version__}\n"


def test_the_licences_are_in_one_table_and_every_file_of_others_has_its_own():
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("## Licence")[1]
    for what in ("code", "prose", "weights", "films and pictures", "fonts of the slides", "scripts of the slides"):
        assert f"| {what} |" in table, what
    fonts = {path for suffix in ("ttf", "otf", "woff", "woff2") for path in ROOT.rglob(f"*.{suffix}")
             if not {".venv", "node_modules"} & {*path.parts}}  # fmt: skip
    static = ROOT / "soralab" / "sessions" / "static"
    assert fonts and {path.parent for path in fonts} == {static / "fonts"}
    assert all(path.name.startswith("KaTeX_") for path in fonts)
    licence = (static / "LICENSE.fonts").read_text(encoding="utf-8")
    assert "SIL OPEN FONT LICENSE" in licence and "Design Science" in licence and "Khan Academy" in licence


def test_the_terms_of_every_real_data_set_are_stated():
    told = (ROOT / "data" / "README.md").read_text(encoding="utf-8").split("## Real data sets")[1]
    for name, one in DATASETS.items():
        assert one.licence and re.search(rf"\| `{name}` \|.*\| {re.escape(one.licence)} \|", told), name


def test_no_checkpoint_learnt_from_real_data():
    """So their licence is the course's own."""
    for module in set(RECIPES.values()):
        text = (ROOT / "soralab" / "recipes" / f"{module}.py").read_text(encoding="utf-8")
        assert not any(name in text for name in DATASETS.keys() - {"pictures", "films"}), module
