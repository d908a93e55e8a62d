"""What the plan of the whole model says of a file is what its imports say."""

import json

import pytest
from test_figures import assert_legible

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


def test_the_plan_tells_what_it_draws():
    plan = figures.made_of({"soralab/sora_full.py": "the transformer", "soralab/walt.py": "its first stage"})
    assert "soralab/sora_full.py takes from" in plan.alt and "chapter 15 invert" in plan.alt and plan.width == 900
    assert figures.made_of({"soralab/walt.py": "it"}, alt="mine").alt == "mine"
    files = {"soralab/sora_full.py": "the transformer", "soralab/walt.py": "its first stage"}
    fig = imports._draw(files, {path: imports.chapters_of(path) for path in files})
    assert_legible(fig)
    boxes = [patch.get_window_extent() for patch in fig.axes[0].patches if hasattr(patch, "get_boxstyle")]
    for text in fig.axes[0].texts:
        if text.get_text() in {*files, *files.values()}:  # what a file is called and is stands in its box
            at = text.get_window_extent()
            assert any(box.x0 < at.x0 and at.x1 < box.x1 and box.y0 < at.y0 and at.y1 < box.y1 for box in boxes)
    with pytest.raises(FileNotFoundError, match="no_such"):
        figures.made_of({"soralab/no_such.py": "nothing"})
