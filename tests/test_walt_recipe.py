"""Chapter 11's trainings and scores: its small world, its batches, what is measured, and what is kept of a queue."""

import json
import math
from collections import Counter
from dataclasses import asdict, replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from tiny_models import numbers, randomise

from soralab import world
from soralab.experiments import walt as experiment
from soralab.experiments import walt_ablations as ablations
from soralab.experiments import walt_autoencoder as copying
from soralab.experiments import walt_scores as scores
from soralab.files.checkpoints import read_card, save_checkpoint
from soralab.latent_diffusion import word_ids
from soralab.recipes import walt, walt_autoencoder
from soralab.recipes.walt import COLOURS, LARGE, SHAPES, SIZES, SMALL, WAYS, Latents, Run, caption, films, scene
from soralab.sora import load_autoencoder as load_soras
from soralab.walt import AutoencoderConfig, CausalAutoencoder, Filmmaker, Walt, WaltConfig
from soralab.world.language import decode
from soralab.world.scene import RADIUS


class Every4th(torch.nn.Module):
    """In place of the autoencoder: a latent is the frame at its end, so that a batch can be looked at."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def encode(self, film):
        return film[:, ::4]

    def decode(self, z):
        """Each latent four times, the first once."""
        return z.repeat_interleave(4, dim=1)[:, 3:]


TINY = Run(config=replace(SMALL, size=(3, 4, 4), windows=((1, 2, 2), (3, 1, 1)), dim=32, heads=2, depth=2, channels=4),
           training=replace(walt.TRAINING, steps=2, warmup=1), scenes=6, batch=3)  # fmt: skip


# ------------------------------------------------------------------------------------------------------ the small world


def test_a_scene_is_a_pure_function_and_training_never_sees_the_tests():
    assert scene(3) == scene(3) != scene(4)
    tested = {scene(index, "test") for index in range(400)}
    assert len(tested) == 400 and not tested & {scene(index) for index in range(Run().scenes)}
    assert set(scores.held_out(400)) == tested


def test_every_thing_stays_in_the_picture_and_moves_at_one_speed():
    for index in range(300):
        thing = scene(index).objects[0]
        edge = 0.5 - RADIUS[thing.size]
        first, last = thing.pose(0.0), thing.pose(1.0)
        assert all(-edge - 1e-9 <= place <= edge + 1e-9 for pose in (first, last) for place in pose[:2])
        moved = (last[0] - first[0], last[1] - first[1])
        assert moved == pytest.approx(tuple(0.5 * d for d in WAYS[thing.motion]))


def test_all_kinds_are_drawn_alike():
    things = [scene(index).objects[0] for index in range(2000)]
    for attribute, kinds in (("shape", SHAPES), ("colour", COLOURS), ("size", SIZES), ("motion", WAYS)):
        counts = Counter(getattr(thing, attribute) for thing in things)
        assert set(counts) == set(kinds)
        assert all(abs(n - 2000 / len(kinds)) < 3.5 * (2000 / len(kinds)) ** 0.5 for n in counts.values())
    assert {scene(index).background for index in range(20)} == {"black", "grey"}


@pytest.mark.parametrize("start", [0, 4, 8, 12])
def test_the_referee_reads_every_cut_of_true_films(start):
    some = scores.held_out(30)
    assert scores.read(films(some, 32)[:, start : start + 9], some) == dict.fromkeys(scores.COLUMNS, 1.0)


def test_a_picture_is_called_what_can_be_seen_in_it():
    for index in range(20):
        thing = scene(index).objects[0]
        assert caption(scene(index)).startswith(caption(scene(index), moving=False))
        assert caption(scene(index), moving=False) == f"a {thing.size} {thing.colour} {thing.shape}"
        assert thing.motion.removeprefix("slides ") in caption(scene(index))


# -------------------------------------------------------------------------------------------------------------- batches


@pytest.fixture(scope="module")
def latents():
    return Latents(Every4th(), replace(TINY, scenes=60, batch=8))


def test_two_cuts_of_nine_frames_from_each_film_with_its_words(latents):
    found = Counter()
    for row, z in enumerate(latents.latents):
        index = row // 100 * 50 + row % 100 % 50 if row < 100 else 50 + (row - 100) % 10
        film, starts = films([scene(index)], 16)[0], []
        for start in (0, 4, 8, 12):
            if (film[start : start + 9 : 4] - z.float()).abs().max() < 2e-3:
                starts.append(start)
        assert starts
        found[index, starts[0] >= 8 if len(starts) == 1 else "still"] += 1
        assert decode(latents.ids[row].tolist()) == caption(scene(index))
        assert decode(latents.names[row].tolist()) == caption(scene(index), moving=False)
    assert 0 < (latents.ids > 0).sum(1).max() < walt.LONGEST == latents.ids.shape[1]  # no prompt is cut
    moving = {key: n for key, n in found.items() if key[1] != "still"}
    assert set(moving.values()) == {1} and len({index for index, _ in found}) == 60


def test_batches_are_pure_and_hold_films_and_pictures_of_other_films(latents):
    one, again, other = latents(3), latents(3), latents(4)
    assert all(torch.equal(one[key], again[key]) for key in one) and not torch.equal(one["x0"], other["x0"])
    assert one["x0"].shape == (8, 3, 3, 16, 16) and one["pictures"].shape == (8, 1, 3, 16, 16)
    words = [decode(row) for row in torch.cat([latents(step)["ids"] for step in range(60)]).tolist()]
    assert words.count("") / len(words) == pytest.approx(walt.NULL, abs=0.045)  # 3 deviations of 480
    for step in range(5):
        batch = latents(step)
        for z, ids in zip(batch["x0"], batch["ids"], strict=True):
            if ids.any():
                rows = (latents.latents.float() - z).abs().flatten(1).amax(1) == 0
                assert (latents.ids[rows] == ids).all(1).any()
        for z, ids in zip(batch["pictures"], batch["names"], strict=True):
            if ids.any():
                rows = (latents.latents[:, :1].float() - z).abs().flatten(1).amax(1) == 0
                assert (latents.names[rows] == ids).all(1).any()


def test_without_pictures_a_batch_has_films_alone(latents):
    latents.run = replace(latents.run, pictures=False)
    try:
        assert set(latents(0)) == {"x0", "ids"}
    finally:
        latents.run = replace(latents.run, pictures=True)


def test_pictures_count_by_their_share_of_the_tokens(monkeypatch):
    """Three frames of a film and one of a picture: 3/4 and 1/4; the chance of self-conditioning is the run's."""
    told = []

    def fixed(model, x0, ids, generator, p_sc):
        told.append((x0.shape[1], p_sc))
        return torch.full((len(x0),), float(x0.shape[1]))

    monkeypatch.setattr(walt, "walt_loss", fixed)
    batch = {"x0": numbers(2, 3, 4, 4, 4), "ids": None, "pictures": numbers(2, 1, 4, 4, 4), "names": None}
    assert walt.loss(replace(TINY, self_conditioning=0.4))(None, batch, None).item() == (3 * 3 + 1 * 1) / 4
    assert told == [(3, 0.4), (1, 0.4)]
    assert walt.loss(replace(TINY, pictures=False))(None, batch, None).item() == 3


def test_blocks_train_with_muon_but_not_their_modulations():
    model = Walt(TINY.config)
    muon, rest = walt.parameters(model)
    names = {id(p): name for name, p in model.named_parameters()}
    assert muon["muon"] and all("blocks" in names[id(p)] and p.ndim == 2 for p in muon["params"])
    assert not any("modulation" in names[id(p)] for p in muon["params"])
    ours = [p for p in muon["params"] if names[id(p)].startswith("blocks")]
    assert len(ours) == 2 * 5 + 3  # to_q, to_kv, to_out and two of the MLP; to the words in every second block
    assert len(muon["params"]) + len(rest["params"]) == len(names)


def test_the_models_sizes_fit_their_films():
    for config, side in ((SMALL, 32), (LARGE, 48)):
        run = Run(config=config)
        assert run.side == side and config.size == (3, side // 4, side // 4)
        tokens = (3, side // 8, side // 8)
        assert config.windows == ((1, *tokens[1:]), (3, tokens[1] // 2, tokens[2] // 2))


@pytest.mark.parametrize("config", [TINY.config, replace(TINY.config, windows=None)])
def test_a_saved_model_is_loaded_as_it_was(config, tmp_path, monkeypatch):
    """The windows are tuples of tuples; a card's JSON has lists of lists."""
    monkeypatch.setattr(walt, "load_autoencoder", lambda name="": tiny_codec())
    model = randomise(Walt(config))
    card = {"config": asdict(config), "autoencoder": "walt_autoencoder"}
    save_checkpoint(tmp_path / "saved", model.state_dict(), card)
    back = walt.load(tmp_path / "saved").walt
    assert back.config == config
    x, t, ids = numbers(1, 3, 4, 4, 4), torch.tensor([0.3]), torch.ones(1, 2, dtype=torch.long)
    torch.testing.assert_close(back(x, t, ids), model(x, t, ids))


def test_a_fit_has_the_averaged_weights(tmp_path, monkeypatch):
    batches = Latents(randomise(CausalAutoencoder(AutoencoderConfig(latent=4, width=8))), TINY)
    model, result = walt.fit(TINY, batches, tmp_path)
    for name, value in model.named_parameters():
        torch.testing.assert_close(value, result.ema.shadow[name])
    assert result.steps == 2 and not model.training


# ------------------------------------------------------------------------------------------------------ the autoencoder


def test_the_autoencoders_batches(monkeypatch):
    monkeypatch.setenv("SORALAB_PROFILE", "laptop")
    small, large = walt_autoencoder.batch(0), walt_autoencoder.batch(3)
    assert small.shape == (16, 9, 3, 32, 32) and large.shape == (7, 9, 3, 48, 48)
    assert torch.equal(small, walt_autoencoder.batch(0)) and not torch.equal(small, walt_autoencoder.batch(1))
    assert torch.equal(small[:8], world.clips(11, range(8), 9, level="full")[0])
    assert torch.equal(small[8:14], world.clips(11, range(6), 9, level="simple")[0])
    assert all(batch.abs().max() <= 1 for batch in (small, large))


def test_copies_are_measured_frame_by_frame(monkeypatch):
    """A copy whose last frame alone is off by 0.2 in every value: 20 dB there; on the whole a ninth of the error."""
    def off(model, some):
        copies = some.clone()
        copies[:, :8] += 0.02
        copies[:, 8] += 0.2
        return copies

    monkeypatch.setattr(copying, "reconstruct", off)
    found = copying.measure(SimpleNamespace(), 4)
    for level in world.LEVELS:
        assert found[level]["frames"] == [40.0] * 8 + [20.0]
        assert found[level]["psnr"] == pytest.approx(10 * math.log10(4 / ((8 * 0.0004 + 0.04) / 9)), abs=0.01)
        assert set(copying.READ) < set(found[level])


def test_what_the_referee_reads_of_true_films_and_of_blank_ones(monkeypatch):
    true = copying.measure(None, 6)
    assert true["simple"] == dict.fromkeys(copying.READ, 1.0) and set(true) == set(world.LEVELS)
    monkeypatch.setattr(copying, "reconstruct", lambda model, some: some * 0 - 1)
    assert copying.measure(SimpleNamespace(), 6)["simple"]["shape"] == 0


# ----------------------------------------------------------------------------------------------------------- the scores


class Oracle(Filmmaker):
    """Films what its prompts' scenes show: continues as the truth goes on."""

    def __init__(self, side=32):
        super().__init__(SimpleNamespace(config=WaltConfig(size=(3, side // 4, side // 4))), Every4th())
        self.side, self.calls = side, []

    def film(self, prompts, seed=0, **options):
        self.calls.append((seed, options))
        return films(scores.held_out(len(prompts)), self.side)[:, :9]

    def extend(self, film, prompts, seed=0, **options):
        self.calls.append((seed, options))
        some = scores.held_out(len(prompts))
        assert prompts == [caption(of) for of in some]
        true = films(some, self.side)
        assert torch.equal(film, true[:, : film.shape[1]])
        return true[:, : film.shape[1] + 4]


def test_an_oracle_has_every_score():
    maker = Oracle()
    assert scores.from_words(maker, 6, steps=7) == dict.fromkeys(scores.COLUMNS, 1.0)
    found = scores.continued(maker, 6, steps=7)
    assert found["psnr"] > 100 and found["all"] == 1 and max(found["psnr repeated"], found["psnr copied"]) < 60
    rows = scores.drift(maker, 6, steps=7)
    assert [row["psnr"] > 100 and row["all"] == 1 for row in rows] == [True] * 3
    assert rows[0]["psnr repeated"] > rows[1]["psnr repeated"] > rows[2]["psnr repeated"]
    assert all(options == {"steps": 7, "guidance": scores.GUIDANCE} for _, options in maker.calls)
    seeds = [seed for seed, _ in maker.calls[2:]]
    assert seeds == [10_000, 10_006, 10_012]  # no noise is used twice


def test_psnr_is_of_the_mean_over_all_films():
    made = torch.tensor([0.2, 0.0]).reshape(2, 1)
    assert scores.psnr(torch.zeros(2, 1), made) == pytest.approx(10 * math.log10(4 / 0.02))


def test_a_wrong_continuation_is_read_as_wrong():
    class Frozen(Oracle):
        def extend(self, film, prompts, seed=0, **options):
            return torch.cat([film, film[:, -1:].expand(-1, 4, -1, -1, -1)], 1)

    some = scores.held_out(12)
    moving = sum(of.objects[0].motion != "stays still" for of in some) / 12
    found = scores.continued(Frozen(), 12)
    assert found["psnr"] == pytest.approx(found["psnr repeated"]) and found["motion"] == pytest.approx(1 - moving)


def test_the_loss_of_a_model_that_says_nothing_is_that_of_v():
    """v of latents x_0 and noise: alpha^2 + sigma^2 E x_0^2 on the mean, here measured again by hand."""
    class Mute(torch.nn.Module):
        config = WaltConfig(channels=3, size=(3, 4, 4))

        def forward(self, x, t, ids):
            asked.append((t, ids))
            return x * 0

    asked = []
    found = scores.loss(Mute(), Every4th(), count=32)
    some = scores.held_out(32)
    x0, eps = films(some, 16)[:, :9:4], torch.randn(32, 3, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    t = (torch.arange(32) + 0.5) / 32
    alpha, sigma = (f(t)[:, None, None, None, None] for f in (scores.PROCESS.alpha, scores.PROCESS.sigma))
    assert found == pytest.approx((alpha * eps - sigma * x0).square().mean().item(), rel=1e-4)
    assert torch.equal(asked[0][0], t) and torch.equal(asked[0][1], word_ids([caption(of) for of in some], 48))


# ------------------------------------------------------------------------------------------------------------ the queue


def test_what_is_kept_is_not_made_again(tmp_path):
    made = []

    def measure():
        made.append(1)
        return {"loss": 0.5}

    for _ in range(2):
        assert ablations.kept(tmp_path / "deep" / "a.json", measure) == {"loss": 0.5}
    assert len(made) == 1 and json.loads((tmp_path / "deep" / "a.json").read_text()) == {"loss": 0.5}


def full(run):
    return replace(run, config=replace(run.config, windows=None))


def test_the_products_of_windows_are_a_third_and_a_quarter_of_all():
    ratio = ablations.attention_flops(ablations.WINDOWS) / ablations.attention_flops(full(ablations.WINDOWS))
    assert ratio == pytest.approx((1 / 3 + 1 / 4) / 2) and ratio <= 0.6


def test_arms_differ_in_one_thing_each():
    base = ablations.BASE
    assert base.config.rank == 2 and base.self_conditioning == 0.9 and base.pictures and base.config.windows
    assert [change(base) for change in ablations.ARMS.values()] == [
        base,
        replace(base, config=replace(base.config, rank=16)), replace(base, config=replace(base.config, rank=None)),
        replace(base, self_conditioning=0.0), replace(base, pictures=False),
    ]  # fmt: skip


@pytest.mark.parametrize("opinions", [True, False])
def test_judged_films_as_it_is_told(monkeypatch, opinions):
    for name in ("from_words", "continued"):
        monkeypatch.setattr(ablations, name, lambda maker, count: {"shown": maker.opinions, "count": count})
    monkeypatch.setattr(ablations, "loss", lambda model, autoencoder, count: count)
    found = ablations.judged("model", "autoencoder", 5, opinions)
    assert found == {"loss": 20, "words": {"shown": opinions, "count": 5}, "continued": {"shown": opinions, "count": 5}}


def tiny_queue(monkeypatch):
    seen = []
    monkeypatch.setattr(ablations, "load_autoencoder", lambda: torch.nn.Linear(1, 1))
    monkeypatch.setattr(ablations, "Latents", lambda autoencoder, run: SimpleNamespace(run=run))
    monkeypatch.setattr(ablations, "drift", lambda maker, count: [count])

    def judged(model, autoencoder, count, opinions=True):
        return {"loss": float(len(seen)), "opinions": opinions}

    monkeypatch.setattr(ablations, "judged", judged)

    def fit(run, batches, folder):
        seen.append((run, batches.run, folder))
        return Walt(TINY.config), SimpleNamespace(steps=run.training.steps, seconds=1.2)

    monkeypatch.setattr(ablations, "fit", fit)
    return seen


def test_windows_and_full_attention_have_equal_seconds_and_the_first_is_the_models_own(tmp_path, monkeypatch):
    seen, run = tiny_queue(monkeypatch), ablations.WINDOWS
    monkeypatch.setattr(ablations, "step_seconds", lambda runs, batches: [0.2, 0.3])
    table = ablations.windows(tmp_path / "a", 7, own=tmp_path / "own")
    equal = replace(full(run), training=replace(run.training, steps=run.training.steps * 2 // 3))
    assert seen == [(run, run, tmp_path / "own"), (equal, run, tmp_path / "a" / "full")]
    assert [table[name]["step seconds"] for name in ("windows", "full")] == [0.2, 0.3]
    assert [table[name]["steps"] for name in ("windows", "full")] == [run.training.steps, equal.training.steps]
    assert table["full"]["drift"] == [7] and table["full"]["attention flops"] > table["windows"]["attention flops"]
    assert ablations.windows(tmp_path / "a", 7, own=tmp_path / "own") == table and len(seen) == 2


def test_every_arm_has_every_seed_and_its_own_batches(tmp_path, monkeypatch):
    seen = tiny_queue(monkeypatch)
    table = ablations.arms(tmp_path)
    assert list(table) == list(ablations.ARMS) and {len(rows) for rows in table.values()} == {3}
    assert [run.training.seed for run, *_ in seen] == [1] * 5 + [2] * 5 + [3] * 5
    assert all(run == batches for run, batches, _ in seen) and len({folder for *_, folder in seen}) == 15
    # a network is filmed as it was trained
    shown = {name: {row["opinions"] for row in rows} for name, rows in table.items()}
    assert shown == {name: {name != "no self-conditioning"} for name in ablations.ARMS}
    assert ablations.arms(tmp_path) == table and len(seen) == 15


def test_a_step_is_timed_for_each_run(monkeypatch):
    """The fastest round counts: a clock that says which run it was asked for."""
    ticks = iter([0, 5, 10, 13, 20, 24, 30, 32])
    monkeypatch.setattr(ablations, "time", SimpleNamespace(process_time=lambda: next(ticks)))
    batch = {"x0": numbers(2, 3, 4, 4, 4), "ids": word_ids(["a red circle"] * 2, 48)}
    run = replace(TINY, pictures=False)
    assert ablations.step_seconds([run, full(run)], lambda step: batch, rounds=2) == [4, 2]


def test_the_whole_measurement_in_small(tmp_path, monkeypatch):
    """`soralab train walt` in the smoke profile, with an autoencoder that is not trained: the card's table is whole."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    for name in ("from_words", "continued", "drift"):  # films of one step: the 24 others do as it does
        monkeypatch.setattr(ablations, name, partial(getattr(scores, name), steps=1))
    for module in (walt, ablations):
        monkeypatch.setattr(module, "load_autoencoder", lambda name="": tiny_codec())
    trained = walt.train("walt", 2)
    found = experiment.metrics("walt", trained)
    assert set(found) == {"films", "windows", "full", "arms"} and set(found["arms"]) == set(ablations.ARMS)
    assert trained.card["steps"] == found["windows"]["steps"] == 2 and len(found["full"]["drift"]) == 3
    assert (tmp_path / "runs" / "walt_ablations" / "2_steps" / "windows.json").exists()
    json.dumps(found, allow_nan=False)
    assert experiment.metrics("walt", trained) == found


@torch.no_grad()
def tiny_codec():
    return CausalAutoencoder(AutoencoderConfig(width=8)).eval()


def test_a_short_run_logs_its_probes(monkeypatch):
    monkeypatch.setattr(walt, "load_autoencoder", lambda name="": tiny_codec())
    monkeypatch.setattr(walt, "PROBED", 32)
    encoded, runs = walt.Latents, []

    def latents(autoencoder, run):
        runs.append(run)
        return encoded(autoencoder, run)

    monkeypatch.setattr(walt, "Latents", latents)
    log = walt.short_run(1, 4)
    assert runs[0].batch == walt.SHORT_BATCH and runs[0].config == walt.SMALL and runs[0].training.cooldown == 0
    assert {"loss", "held", "pairing", "samples"} <= set(log) and log["step"][-1] == 4
    assert log["samples"]["truth"].shape == log["samples"][4].shape == (3, 3, 32, 32)


# ----------------------------------------------------------------------------------------------------------- the card


def test_the_shipped_autoencoder_copies_every_frame_alike_and_half_as_many_tokens_do():
    """The card: later frames, which share a latent, are as good as each other, and the first a little better."""
    card = read_card("walt_autoencoder")
    model, theirs = walt.load_autoencoder(), load_soras()
    film = films(scores.held_out(1), 32)[:, :9]
    assert model.encode(film).shape == (1, 3, 16, 8, 8) and theirs.encode(film).shape == (1, 5, 8, 8, 8)
    for level in world.LEVELS:
        row = card["metrics"]["walt_autoencoder"][level]
        later = row["frames"][1:]
        assert max(later) - min(later) < 1.5 and abs(row["frames"][0] - sum(later) / 8) < 2.5
    assert card["parameters"] == sum(value.numel() for value in model.state_dict().values())


def test_the_card_is_of_the_shipped_weights():
    found = copying.measure(walt.load_autoencoder(), 20)
    card = read_card("walt_autoencoder")["metrics"]["walt_autoencoder"]
    for level in world.LEVELS:
        assert found[level]["psnr"] == pytest.approx(card[level]["psnr"], abs=1.0)
        for column in copying.READ:
            assert found[level][column] >= card[level][column] - 0.25  # 20 films
