"""What the plan of the whole model says of a file is what its imports say."""

import json
from html.parser import HTMLParser

import pytest

from soralab import figures
from soralab.figures import imports


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone with pages and files of some chapters; what is read of it."""
    (tmp_path / "soralab").mkdir()
    (tmp_path / "notebooks").mkdir()

    def page(name, *cells):
        cells = [{"cell_type": kind, "source": source.splitlines(keepends=True)} for kind, source in cells]
        (tmp_path / "notebooks" / f"{name}.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")

    page("03_vit", ("markdown", "from soralab.blocks import told"), ("code", "from soralab.blocks import cut, shared"))
    page("06_latent_diffusion", ("code", "import torch\nfrom soralab.blocks import shared\nfrom soralab import blocks"))
    page("00_road_to_sora", ("code", "from soralab.blocks import bend"))
    (tmp_path / "soralab" / "walt.py").write_text("from soralab.blocks.inner import bend\n", encoding="utf-8")
    monkeypatch.setattr(imports, "ROOT", tmp_path)
    monkeypatch.setattr(imports, "NOTEBOOKS", tmp_path / "notebooks")
    imports.first_uses.cache_clear()
    yield tmp_path
    imports.first_uses.cache_clear()


def taken(clone, text, name="mine"):
    (clone / "soralab" / f"{name}.py").write_text(text, encoding="utf-8")
    return imports.chapters_of(f"soralab/{name}.py")


def test_a_shared_name_is_the_first_chapters_whose_page_or_file_imports_it(clone):
    assert taken(clone, "from soralab.blocks import cut, shared") == {3: ["cut", "shared"]}
    assert taken(clone, "from soralab.blocks import bend") == {11: ["bend"]}  # the map is no chapter; a room is one
    assert taken(clone, "from soralab.blocks import told") == {}  # told in words alone
    assert taken(clone, "from soralab.diffusion import cut") == {}  # of that name, and another
    assert taken(clone, "from soralab.training import cut\nimport soralab.blocks") == {}


def test_what_a_chapters_file_makes_is_its_own_and_so_are_the_kernels_and_dits_block(clone):
    assert taken(clone, "from soralab.clip import b, A\ndef f():\n    from soralab.vit import c") == {
        3: ["c"], 4: ["A", "b"]}  # fmt: skip
    assert taken(clone, "from soralab.kernels.dispatch import Packed") == {17: ["Packed"]}
    assert taken(clone, "from soralab.blocks.dit import Block") == {16: ["Block"]}
    assert taken(clone, "from soralab.blocks.dither import Block") == {}
    assert taken(clone, "from soralab.clip import a\nfrom soralab.walt import b", "walt") == {4: ["a"]}  # not of itself


def test_the_whole_model_has_parts_of_these_chapters():
    model = imports.chapters_of("soralab/sora_full.py")
    assert "PromptEncoder" in model[4] and {"guide", "SAMPLERS"} <= set(model[6]) and model[15] == ["invert"]
    assert {"Block", "check_film", "initialise"} <= set(model[16]) and "Block" in model[11]
    assert model[7] == model[17] == ["Packed"] and {"CausalAutoencoder", "LowRank"} <= set(model[11])
    assert imports.chapters_of("soralab/command/film.py")[12] == ["Expander"]


class Cells(HTMLParser):
    """The texts of a table's cells, and what tags it is made of."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.tags = [], set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if data.strip():
            self.rows[-1][-1] += data


def test_the_plan_has_each_name_in_its_chapters_row_and_its_files_column():
    files = {"soralab/sora_full.py": "the <transformer>", "soralab/experiments/sora_full_readers.py": "its readers"}
    plan = figures.made_of(files)
    page = Cells(plan.html())
    assert page.rows[0] == ["", *(says + path for path, says in files.items())]
    chapters = {int(name[:2]): cells for name, *cells in page.rows[1:]}
    taken = [imports.chapters_of(path) for path in files]
    assert list(chapters) == sorted({*taken[0], *taken[1]})
    for number, cells in chapters.items():
        assert cells == [", ".join(of.get(number, [])) for of in taken]
    assert chapters[8] == ["", "ViViT"] and chapters[13] == ["", "Assistant, pick_frames"]
    assert [row[0] for row in page.rows if row[0][:2] == "08"] == ["08 · ViViT"]
    assert not page.tags & {"script", "style", "img"}


def test_the_plan_in_words():
    plan = figures.made_of({"soralab/sora_full.py": "the transformer", "soralab/walt.py": "its first stage"})
    says = repr(plan)
    assert says.startswith("soralab/sora_full.py takes from chapter 01 ") and "; chapter 15 invert; " in says
    assert ". soralab/walt.py takes from chapter 01 TimestepEmbedding; " in says
    assert plan._repr_mimebundle_() == {"text/html": plan.html(), "text/plain": says}
    with pytest.raises(FileNotFoundError, match="no_such"):
        figures.made_of({"soralab/no_such.py": "nothing"})
