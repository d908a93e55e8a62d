"""Does chapter 04's CLIP tell two things' colours apart: what is asked of it, and how two ways to go on are compared.

Which scenes and texts are chosen is left open.
"""

import pytest
import torch

from soralab.datasets.still_captions import descriptive, frames, sample
from soralab.experiments import clip_binding, clip_scores
from soralab.recipes import clip as recipe

COUNT = 8  # pairs that are asked for; they are looked for in twenty times as many scenes


def knowing(monkeypatch, split: str, exchanged: float):
    """A tower that knows the pictures of a split and their texts, and for which the text with the colours exchanged
    lies `exchanged` times as near; what else it is shown is nothing to it."""
    scenes = [sample(recipe.SEED, index, split) for index in range(20 * COUNT)]
    own = torch.eye(len(scenes))
    pictures = {bytes(picture.numpy()): own[k] for k, picture in enumerate(frames(scenes))}
    lines = {descriptive(clip_scores.swapped(s)): exchanged * own[k] for k, s in enumerate(scenes)
             if len(s.objects) == 2}  # fmt: skip
    lines |= {descriptive(scene): own[k] for k, scene in enumerate(scenes)}
    nothing = torch.zeros(len(scenes))
    monkeypatch.setattr(clip_scores, "images", lambda model, shown: torch.stack(
        [pictures.get(bytes(picture.numpy()), nothing) for picture in shown]))  # fmt: skip
    monkeypatch.setattr(clip_scores, "texts", lambda model, words, said: torch.stack(
        [lines.get(line, nothing) for line in said]))  # fmt: skip


@pytest.mark.parametrize("split, exchanged, found", [("test", 0.5, (1, 1)), ("test", 2.0, (0, 1)),
                                                     ("train", 0.5, (0, 0))])  # fmt: skip
def test_binding_asks_of_scenes_that_training_never_saw(split, exchanged, found, monkeypatch):
    knowing(monkeypatch, split, exchanged)
    shares = clip_scores.binding(None, None, COUNT)
    assert (shares["colours"], shares["another"]) == found


def test_two_ways_to_go_on_differ_in_their_loss_alone(monkeypatch, tmp_path):
    model, runs = torch.nn.Linear(2, 2), []

    def fit(build, training, batches, folder, loss):
        begun = build()
        assert begun is not model and torch.equal(begun.weight, model.weight)
        runs.append((folder, loss, training, batches(0)))
        return begun, None

    monkeypatch.setattr(clip_binding, "fit", fit)
    monkeypatch.setattr(clip_binding, "binding", lambda *_, **__: {"colours": 0.25, "another": 0.75})
    monkeypatch.setattr(clip_binding, "retrieval", lambda *_, **__: {"text of picture": 0.5, "picture of text": 0.5})
    table = clip_binding.exchanged(tmp_path, model, recipe.tokenizer(), steps=3, scenes=40, seeds=(1, 2))
    assert len(table) == 2 and all(len(found) == 2 for row in table.values() for found in row.values())
    assert len({folder for folder, *_ in runs}) == len(runs) == 4  # no run goes on with another's
    by_loss = {}
    for folder, loss, training, batch in runs:
        arm = next(arm for arm in table if folder.name.startswith(arm.replace(" ", "_")))
        by_loss.setdefault((arm, loss), []).append((training, batch))
    (one, other), losses = by_loss.values(), {loss for _, loss in by_loss}
    assert len(losses) == 2 and [training for training, _ in one] == [training for training, _ in other]
    assert [(training.seed, training.steps) for training, _ in one] == [(1, 3), (2, 3)]
    for (_, shown), (_, same) in zip(one, other, strict=True):
        assert set(shown) == set(same) and all(torch.equal(shown[key], same[key]) for key in shown)
    assert not torch.equal(one[0][1]["ids"], one[1][1]["ids"])


def test_no_exchanged_text_can_be_refused_without_its_picture():
    """A combination that training holds out is wrong for any picture."""
    scenes = [scene for scene in (sample(4, k, "test") for k in range(600)) if len(scene.objects) == 2]
    fit = [scene for scene in scenes if clip_scores.exchangeable(scene)]
    assert len(fit) > 50 and not any(clip_scores.swapped(scene).held_out for scene in fit)
    assert any(clip_scores.swapped(scene).held_out for scene in scenes)
    for a, b in (scene.objects for scene in fit):
        assert a.shape != b.shape and a.colour != b.colour
