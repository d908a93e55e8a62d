"""Chapter 12: the captioner, its losses, what it writes; the blend; longer prompts."""

import math
from collections import Counter
from dataclasses import asdict
from random import Random

import pytest
import torch
import torch.nn.functional as F
from tiny_models import numbers, randomise

from soralab.clip import CLIP, CLIPConfig, contrastive_loss
from soralab.files.checkpoints import CheckpointError, save_checkpoint
from soralab.recaptioning import (
    TOKENS,
    Captioner,
    CaptionerConfig,
    CoCa,
    Drawn,
    Expander,
    Recaptioner,
    blend,
    caption_loss,
    shifted,
    to_ids,
)
from soralab.transformer import END, PAD, START, Transformer, TransformerConfig
from soralab.world.language import words

EYES = CLIPConfig(embed=8, width=4, text_width=16, text_layers=1, head=8, vocabulary=40, context=12)
SIZES = {"N": 2, "d_model": 16, "d_ff": 24, "h": 2, "d_k": 8, "d_v": 8}
TEXTS = ("a small red circle", "a large blue square is above a white moon", "red")


def tiny(**changes):
    """A tiny captioner with random weights everywhere; the tower's are such that the picture is not lost on the way."""
    torch.manual_seed(0)
    model = Captioner(CaptionerConfig(**SIZES, clip=EYES, **changes))
    tower = {name: 2.4 * v if v.ndim == 4 else v.clone() for name, v in model.tower.state_dict().items()}
    tower |= {name: torch.ones_like(value) for name, value in tower.items() if name.endswith("bn3.weight")}
    randomise(model)
    model.tower.load_state_dict(tower)
    with torch.no_grad():
        model.embedding.weight.mul_(4)  # else all words are nearly as likely, whatever is shown
        for name, p in model.named_parameters():
            if "cross.W" in name or "into" in name:
                p.mul_(3)
    return model


def films(batch=3, time=1, seed=1):
    """Coarse patterns: of fine noise a convolution sees the same everywhere."""
    coarse = numbers(batch, time, 3, 4, 4, seed=seed) + numbers(batch, time, 3, 1, 1, seed=seed + 1)
    return coarse.repeat_interleave(8, -1).repeat_interleave(8, -2)


MODEL, TARGET = tiny(), to_ids(TEXTS)

# ---------------------------------------------------------------------------------------------------- the captioner


@torch.no_grad()
def test_equation_2_word_by_word():
    """The loss is minus the mean of log P(t_j | t_<j; F(i)), as the model foretells them when it writes."""
    film, total, count = films(3, 2), 0.0, 0
    for row, text in enumerate(TEXTS):
        writing, word = MODEL.begin(film[row : row + 1]), torch.tensor([START])
        for said in to_ids([text])[0]:
            logits = MODEL.decode(word[:, None], writing)[:, 0]
            total, count = total - logits.log_softmax(-1)[0, said].item(), count + 1
            word = said[None]
    assert word.item() == END and count == sum(len(words(text)) + 1 for text in TEXTS)
    assert caption_loss(MODEL, film, TARGET).item() == pytest.approx(total / count, rel=1e-5)


def wrong_pads(model, film, target):
    return F.cross_entropy(model(film, shifted(target)).flatten(0, 1), target.flatten())


def wrong_unshifted(model, film, target):
    logits = model(film, target)
    return F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PAD)


def wrong_neighbours(model, film, target):
    return caption_loss(model, film.roll(1, 0), target)


def wrong_without_end(model, film, target):
    return caption_loss(model, film, target.masked_fill(target == END, PAD))


@pytest.mark.parametrize("wrong", [wrong_pads, wrong_unshifted, wrong_neighbours, wrong_without_end])
@torch.no_grad()
def test_other_losses_differ(wrong):
    film = films(3, 2)
    assert abs(wrong(MODEL, film, TARGET) - caption_loss(MODEL, film, TARGET)) > 3e-5  # float32 gives 1e-6


@torch.no_grad()
def test_no_word_sees_itself_or_a_later_one():
    film, other = films(), TARGET.clone()
    other[:, 4:] = 9
    before, after = MODEL(film, shifted(TARGET)), MODEL(film, shifted(other))
    assert torch.equal(before[:, :5], after[:, :5]) and not torch.allclose(before[:, 5:], after[:, 5:])


@torch.no_grad()
def test_every_frame_and_its_place_in_time_count():
    film = films(1, 4)
    said = shifted(TARGET[:1])
    whole = MODEL(film, said)
    for frame in range(4):
        other = film.clone()
        other[:, frame] += 0.5
        assert (MODEL(other, said) - whole).abs().max() > 3e-5
    assert (MODEL(film.flip(1), said) - whole).abs().max() > 3e-5
    # the clock is the film's: every second frame stands at the same moments
    memory = MODEL.encode(film)
    assert memory.shape == (1, 4 * 16, 16)
    model = tiny()
    model.encoder = torch.nn.ModuleList()  # before places and frames mix
    torch.testing.assert_close(model.encode(film)[:, :16], model.encode(film[:, ::2])[:, :16])
    torch.testing.assert_close(model.encode(film)[:, 32:48], model.encode(film[:, ::2])[:, 16:32])


@torch.no_grad()
def test_the_places_of_both_stages_lie_above_each_other():
    pixels = films()[:, 0]
    fine, coarse = MODEL.tower.states(pixels)[-2:]
    seen = MODEL.see(pixels).unflatten(1, (4, 4))
    assert fine.shape[2:] == (4, 4) and coarse.shape[2:] == (2, 2)
    for row, column in ((0, 0), (1, 2), (3, 3), (2, 1)):
        want = torch.cat([fine[:, :, row, column], coarse[:, :, row // 2, column // 2]], dim=1)
        assert torch.equal(seen[:, row, column], want)


@torch.no_grad()
def test_a_place_is_told_from_another():
    """A picture whose places are exchanged is another one, though the same patches are there."""
    pixels = films(1)
    said = shifted(TARGET[:1])
    assert (MODEL(pixels.flip(-1), said) - MODEL(pixels, said)).abs().max() > 1e-3


@torch.no_grad()
def test_one_vector_in_place_of_places():
    model = tiny(places=False)
    pixels = films(2)
    assert model.encode(pixels).shape == (2, 1, 16)
    torch.testing.assert_close(model.see(pixels[:, 0])[:, 0], model.tower(pixels[:, 0]))
    assert (model(pixels, TARGET[:2]) - model(pixels.roll(1, 0), TARGET[:2])).abs().max() > 1e-3


def test_the_tower_learns_and_its_norms_keep_clips_statistics():
    model = tiny().train()
    before = {name: value.clone() for name, value in model.tower.named_buffers()}
    assert model.encoder.training and not model.tower.training and not Captioner(model.config).tower.bn1.training
    caption_loss(model, 3 * films() + 1, TARGET).backward()
    assert all(torch.equal(value, before[name]) for name, value in model.tower.named_buffers())
    used = [name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0]
    idle = {name for name, _ in model.named_parameters()} - set(used)
    assert not idle and "tower.conv1.weight" in used
    assert model.eval().training is False


def test_what_it_does_not_take():
    for film in (films()[:, 0], numbers(2, 1, 3, 32, 16), numbers(2, 1, 1, 32, 32)):
        with pytest.raises(ValueError, match=r"film is \[.*\]; it takes \[batch, time, 3, 32, 32\]"):
            MODEL.encode(film)
    with pytest.raises(ValueError, match="a ResNet of two stages or more"):
        CaptionerConfig(clip=CLIPConfig(layers=2, patch=8))
    with pytest.raises(ValueError, match="texts has the word 'tomato'"):
        to_ids(["a red tomato"])
    with pytest.raises(ValueError, match="texts is empty; it takes one or more"):
        to_ids([])
    with pytest.raises(ValueError, match="films is empty; it takes one picture or film, or more"):
        Recaptioner(MODEL)(films()[:0])


def test_texts_as_ids():
    ids = to_ids(["Red, circle!", "a"])
    assert ids.tolist() == [[TOKENS.index("red"), TOKENS.index("circle"), END], [TOKENS.index("a"), END, PAD]]
    assert to_ids(["a red"], end=False).shape == (1, 2)
    assert to_ids(["a", ""], end=False).dtype == to_ids([""], end=False).dtype == torch.long
    assert shifted(ids).tolist() == [[START, *ids[0, :2].tolist()], [START, ids[1, 0].item(), END]]
    assert len(set(TOKENS)) == len(TOKENS) and TOKENS[PAD] == "<pad>"


# ------------------------------------------------------------------------------------------------------------- CoCa


def test_cocas_two_losses_and_their_one_tower():
    clip, captioner = randomise(CLIP(EYES)), tiny()
    pool = clip.image.attnpool
    joint = CoCa(captioner, clip)
    film, ids = films(), torch.tensor([[1, 5, 39], [2, 39, 0], [7, 8, 39]])
    con, cap = joint(film, TARGET, ids)
    pooled = pool(captioner.tower.states(film[:, 0])[-1])
    I_e, T_e = F.normalize(pooled, dim=-1), clip.encode_text(ids)
    torch.testing.assert_close(con, contrastive_loss(I_e, T_e, clip.t.exp()))
    torch.testing.assert_close(cap, caption_loss(captioner, film, TARGET))
    seen, look = [], captioner.tower.states
    captioner.tower.states = lambda pixels: seen.append(len(pixels)) or look(pixels)
    joint(film, TARGET, ids)
    del captioner.tower.states
    assert seen == [3]  # each picture is looked at once, for both losses
    names = [id(p) for p in joint.parameters()]
    assert len(names) == len(set(names))
    assert not joint.train().captioner.tower.bn1.training and joint.clip.text.training
    con.backward()
    assert captioner.tower.conv1.weight.grad.abs().max() > 0 and captioner.into.weight.grad is None


# ------------------------------------------------------------------------------------------------ what it writes


@torch.no_grad()
def test_captions_are_written_greedily_and_by_themselves():
    film = films(5, 2)
    write = Recaptioner(MODEL)
    texts = write(film, chunk=2)
    assert texts == write(film) == [write(film[k : k + 1])[0] for k in range(5)]
    assert write(film[:, 0]) == write(film[:, :1])  # a picture is a film of one frame
    said, likeliest = to_ids(texts[:1])[0], [START]
    for _ in range(len(words(texts[0]))):
        logits = MODEL(film[:1], torch.tensor([likeliest]))[0, -1]
        logits[[PAD, START]] = -math.inf
        likeliest.append(int(logits.argmax()))
    assert likeliest[1:] == said.tolist()[: len(likeliest) - 1]


def test_saved_and_loaded(tmp_path):
    model = tiny()
    card = {"config": asdict(model.config), "tokens": TOKENS}
    save_checkpoint(tmp_path / "captions", model.state_dict(), card)
    found = Recaptioner.load(tmp_path / "captions")
    assert found.model.config == model.config and found(films()) == Recaptioner(model)(films())
    writer = Transformer(TransformerConfig.small(len(TOKENS), **SIZES))
    save_checkpoint(tmp_path / "longer", writer.state_dict(), {"config": asdict(writer.config), "tokens": TOKENS})
    assert Expander.load(tmp_path / "longer").model.config == writer.config
    for load, name in ((Recaptioner, "longer"), (Expander, "captions")):
        with pytest.raises(CheckpointError, match="holds no"):
            load.load(tmp_path / name)


# ------------------------------------------------------------------------------------------------------------ the blend


@pytest.mark.parametrize("ratio", [0.0, 0.65, 0.8, 0.9, 0.95, 1.0])
def test_the_blend_is_drawn_for_each_picture_each_time(ratio):
    rng = Random(4)
    said = [[blend("web", "ours", ratio, rng) for _ in range(40)] for _ in range(100)]  # 100 pictures, 40 times each
    share = sum(row.count("ours") for row in said) / 4000
    assert share == pytest.approx(ratio, abs=4 * (ratio * (1 - ratio) / 4000) ** 0.5 + 1e-9)
    if 0.05 <= ratio <= 0.95:
        of_each = [row.count("ours") / 40 for row in said]
        spread = (sum((s - ratio) ** 2 for s in of_each) / 100) ** 0.5
        assert spread == pytest.approx((ratio * (1 - ratio) / 40) ** 0.5, rel=0.3)  # as lots are: no picture is all one
        assert len({tuple(row) for row in said}) > 50


def test_a_ratio_is_a_share():
    for ratio in (-0.1, 95, math.nan):
        with pytest.raises(ValueError, match="ratio is .*; it takes a share from 0 to 1"):
            blend("web", "ours", ratio, Random(0))


# ------------------------------------------------------------------------------------------------------ longer prompts


class Fixed:
    """A writer that always foretells the same."""

    def __init__(self, log_p):
        self.log_p, self.chosen = log_p, None

    def next(self, words):
        return self.log_p.expand(len(words), -1).clone()

    def select(self, rows):
        self.chosen = rows


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_a_draw_has_the_frequencies_of_the_model(temperature):
    p = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0])
    writer = Drawn(Fixed(p.log()[None]), temperature, torch.Generator().manual_seed(1))
    drawn = writer.next(torch.zeros(20_000, dtype=torch.long)).argmax(-1)
    want = p ** (1 / temperature)
    found = torch.bincount(drawn, minlength=5) / 20_000
    assert (found - want / want.sum()).abs().max() < 0.015 and found[4] == 0
    writer.select(torch.tensor([1]))
    assert writer.writer.chosen.tolist() == [1]


class Scripted(Expander):
    """An expander whose draws are written down."""

    def __init__(self, *rounds):
        object.__setattr__(self, "rounds", list(rounds))
        object.__setattr__(self, "asked", [])

    def draw(self, prompts, generator, temperature=1.0):
        self.asked.append(list(prompts))
        return self.rounds.pop(0)


def test_what_contradicts_is_drawn_again_and_what_fits_stays():
    longer = Scripted(["a small red circle", "a blue moon", "a large ring"], ["a green square"])
    found = longer(["a red circle", "", "a square", "a large ring"], tries=3)
    assert found == ["a small red circle", "", "a green square", "a large ring"]
    assert longer.asked == [["a red circle", "a square", "a large ring"], ["a square"]]


def test_what_never_fits_stays_as_it_was():
    longer = Scripted(["a blue moon"], ["two moons"], ["a red square"])
    assert longer(["a red circle"], tries=3) == ["a red circle"] and longer.rounds == []


def test_draws_follow_the_seed():
    torch.manual_seed(0)
    model = Transformer(TransformerConfig.small(len(TOKENS), **SIZES)).eval()
    longer = Expander(model)
    rows = [longer.draw(["a red circle"] * 3, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert rows[0] == rows[1] != rows[2] and len(set(rows[0])) == 3  # each prompt by a lot of its own
    assert Counter(longer(["a red circle"], seed=1)) == {"a red circle": 1}  # an untrained one never fits
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="temperature is .*; it takes a number above 0"):
            longer(["a red circle"], temperature=temperature)
    cold = longer.draw(["a red circle"] * 2, torch.Generator().manual_seed(3), temperature=1e-4)
    assert cold[0] == cold[1]
