"""Decoders that learn from what a transformer makes: what they are shown, what of them learns, who films with them."""

from collections import Counter
from dataclasses import asdict, replace
from random import Random

import pytest
import torch
from tiny_full import AUTOENCODER, save_full, tiny_codec, tiny_filmmaker
from tiny_models import numbers, randomise

from soralab.blocks.film_codec import decoded_by
from soralab.experiments import sora_full_decoder as measured
from soralab.files.checkpoints import CheckpointError, load_checkpoint, read_card, save_checkpoint
from soralab.recipes import decoder as shared
from soralab.recipes import parts
from soralab.recipes import sora_full_decoder as recipe
from soralab.recipes.decoder import Pairs
from soralab.recipes.sora import wordings
from soralab.recipes.sora_autoencoder import textures
from soralab.recipes.sora_full import KINDS, render, scenes
from soralab.sora_full import FullFilmmaker
from soralab.walt import CausalAutoencoder

# ------------------------------------------------------------------------------------------------ what they are shown


def oracle(z, wrong=0.0, seen=None):
    """The velocity of a transformer that knows the film, and takes it for one that is `wrong` off."""

    def of(scale):
        def velocity(x, t):
            if seen is not None:
                seen.append((scale, t[0].item()))
            return (x - z - wrong) / t[:, None, None]

        return velocity

    return of


@pytest.mark.parametrize("sampler", ["ddpm", "dpm_solver_pp"])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_taken_back_is_what_the_transformer_takes_it_for(sampler, seed):
    z = numbers(3, 4, 5, seed=seed)
    back = shared.taken_back(oracle(z), z, Random(seed), 2.0, sampler)
    torch.testing.assert_close(back, z, atol=1e-5, rtol=0)
    off = shared.taken_back(oracle(z, 0.25), z, Random(seed), 2.0, sampler)
    torch.testing.assert_close(off, z + 0.25, atol=1e-5, rtol=0)


def test_films_are_noised_to_times_of_their_own_and_walked_as_far_back():
    z, first, scales, lengths = numbers(2, 3, 4), [], Counter(), []
    for seed in range(200):
        seen = []
        shared.taken_back(oracle(z, 0.1, seen), z, Random(seed), 1.0, "ddpm")
        assert len({scale for scale, _ in seen}) == 1 and len(seen) == max(1, round(shared.WAY * seen[0][1]))
        first.append(seen[0][1])
        scales[seen[0][0]] += 1
        lengths.append(len(seen))
    assert 0 <= min(first) < 0.05 and shared.LATEST - 0.05 < max(first) <= shared.LATEST
    assert abs(sum(first) / 200 - shared.LATEST / 2) < 4 * shared.LATEST / 12**0.5 / 200**0.5
    assert set(scales) == set(shared.SCALES) and scales[3.0] > scales[1.5] and {1, 7} <= set(lengths)


def test_the_same_films_are_taken_back_the_same_way_and_others_with_noise_of_their_own():
    z = torch.zeros(2, 3, 4)
    half = lambda scale: lambda x, t: x / 2  # noqa: E731  a transformer that leaves some noise
    once, again, other = (shared.taken_back(half, z, Random(seed), 1.0, "ddpm") for seed in (1, 1, 2))
    assert torch.equal(once, again) and not torch.equal(once, other) and not torch.equal(once[0], once[1])


# ------------------------------------------------------------------------------------------------------- the batches


def library(films, frames=5, side=32, start=0):
    """Film k of it has the bytes start + k, and its latents are that number."""
    number = torch.arange(start, start + films)
    shown = number[:, None, None, None, None].expand(-1, frames, 3, side, side)
    return {"latents": number[:, None].half(), "film": shown.byte()}


def test_each_library_has_its_share_of_batches_and_an_epoch_has_every_film_once():
    pairs = shared.Pairs([library(90), library(40, start=90), library(7, 1, start=130)], (4, 2, 1), seed=3)
    assert [pairs.size(k) for k in range(3)] == [28, 28, 6]
    seen = [Counter(), Counter(), Counter()]
    for step in range(7 * 10):
        batch = pairs(step)
        which = [len(batch["film"][0]) == 1, batch["latents"][0, 0] >= 90].count(True)
        seen[which].update(batch["latents"][:, 0].long().tolist())
        assert torch.equal(((batch["film"] + 1) * 127.5).round()[:, 0, 0, 0, 0], batch["latents"][:, 0])
        assert batch["film"].min() >= -1 and batch["film"].max() <= 1
    assert [sum(counts.values()) for counts in seen] == [40 * 28, 20 * 28, 10 * 6]
    for counts, films in zip(seen, (90, 40, 7), strict=True):
        assert len(counts) == films and max(counts.values()) - min(counts.values()) <= 1
    assert torch.equal(pairs(11)["latents"], pairs(11)["latents"])
    ends = [pairs(step)["latents"] for step in (0, 1, 7, 8)]
    assert all(not torch.equal(a, b) for k, a in enumerate(ends) for b in ends[k + 1 :])


def test_libraries_take_turns_and_each_has_an_order_of_its_own():
    pairs = shared.Pairs([library(64), library(64), library(64)], (4, 4, 4), seed=3)
    assert sorted(pairs.turns) == [0] * 4 + [1] * 4 + [2] * 4 != pairs.turns
    firsts = [pairs(pairs.turns.index(which))["latents"][:, 0].tolist() for which in range(3)]
    assert firsts[0] != firsts[1] != firsts[2] != firsts[0]


@pytest.mark.parametrize("frames, side, films, size", [(9, 32, 100, 16), (17, 32, 100, 8), (9, 48, 100, 8),
                                                       (1, 32, 100, 32), (9, 96, 100, 2), (9, 32, 5, 4)])  # fmt: skip
def test_a_batch_is_an_even_number_of_films_of_nearly_as_many_pixels(frames, side, films, size):
    assert shared.Pairs([library(films, frames, side)], (1,), 0).size(0) == size


def test_films_survive_as_bytes():
    film = numbers(2, 3, 4).clamp(-1, 1)
    back = shared.to_bytes(film).float() / 127.5 - 1
    assert (back - film).abs().max() <= 1 / 255 + 1e-6
    assert shared.to_bytes(torch.tensor([-2.0, -1, 1, 2])).tolist() == [0, 0, 255, 255]


# ------------------------------------------------------------------------------------------------- what of them learns


def test_the_decoder_learns_alone_and_all_of_it():
    model = tiny_codec()
    groups = shared.parameters(model)
    told = [id(p) for group in groups for p in group["params"]]
    mine = {id(p) for name, p in model.named_parameters() if name.startswith("decoder")}
    assert len(told) == len(set(told)) and set(told) == mine
    assert {id(p) for p in model.parameters() if p.requires_grad} == mine
    assert all(p.ndim >= 2 for p in groups[0]["params"]) and groups[0]["muon"] and "muon" not in groups[1]
    plain = {id(p) for p in groups[1]["params"] if p.ndim >= 2}
    assert plain == {id(model.decoder_quarter[0].weight), id(model.decoder_half[-1].weight)}


def test_the_loss_is_of_the_film_that_is_true():
    model, z = tiny_codec(), numbers(2, 2, 16, 2, 2)
    film = model.decode(z).detach()
    loss, told = shared.loss(model, {"latents": z, "film": film + 0.2}, torch.Generator())
    assert loss.item() == pytest.approx(0.2**2 + 0.02, rel=1e-4)
    assert told["psnr"] == pytest.approx(20, abs=1e-3)  # 2 is the range of a film


# -------------------------------------------------------------------------------------------- the whole model's recipe


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Checkpoints of the whole model in small, and a folder for runs."""
    folder = tmp_path / "checkpoints"
    monkeypatch.setenv("SORALAB_CHECKPOINTS", str(folder))
    monkeypatch.setattr(recipe, "RUNS", tmp_path / "runs")
    save_full(folder)
    save_full(folder, autoencoder_sha256=read_card("sora_full_autoencoder")["sha256"])
    return folder


def test_a_library_holds_the_films_of_training_and_what_the_model_makes_of_their_latents(shelf, tmp_path, monkeypatch):
    """Chunk by chunk: the scenes of this kind, in their order, each chunk with a draw of its own."""
    monkeypatch.setattr(shared, "CHUNK", 2)
    kind, number, maker, asked = KINDS[3], 3, tiny_filmmaker(), []
    real = shared.taken_back
    monkeypatch.setattr(shared, "taken_back", lambda *args: asked.append(args) or real(*args))
    network, told = maker.network, []
    monkeypatch.setattr(maker, "network", lambda given, clips, prompts, *rest: told.append(prompts) or network(
        given, clips, prompts, *rest), raising=False)  # fmt: skip
    found = recipe.pairs(kind, maker, tmp_path / "pairs", 5, "one")
    source = scenes(kind, number)
    mine = [next(source) for _ in range(5)]
    parts = [render(kind, mine[k : k + 2], k) for k in (0, 2, 4)]
    true = torch.cat(parts)
    assert torch.equal(found["film"], shared.to_bytes(true))
    z = torch.cat([maker.encode(part) for part in parts])
    torch.testing.assert_close(torch.cat([args[1] for args in asked]), z, atol=0.02, rtol=0.02)
    assert found["latents"].shape == z.shape and not torch.allclose(found["latents"].float(), z, atol=0.05)
    for k, (_, some, rng, shift, sampler) in enumerate(asked):
        assert sampler == "ddpm" and shift == maker.shift(some) != 1
        fresh = Random(f"{recipe.SEED}/{kind.name}/{2 * k}")
        said = [wordings(scene)[1 + (fresh.random() < 0.5)] for scene in mine[2 * k : 2 * k + 2]]
        assert told[k] == said and isinstance(rng, Random)

    again = recipe.pairs(kind, None, tmp_path / "pairs", 5, "one")  # kept: nobody has to make them
    assert torch.equal(again["latents"], found["latents"])
    for films, sora in ((4, "one"), (5, "another")):  # others are to be made anew
        with pytest.raises(AttributeError):
            recipe.pairs(kind, None, tmp_path / "pairs", films, sora)
    monkeypatch.setattr(shared, "LATEST", 0.5)
    with pytest.raises(AttributeError):
        recipe.pairs(kind, None, tmp_path / "pairs", 5, "one")


@pytest.fixture
def library_of_one(monkeypatch):
    """9 films in chunks of 2 and parts of 4: (a function that makes them, of each chunk how many it took back)."""
    monkeypatch.setattr(shared, "CHUNK", 2)
    monkeypatch.setattr(recipe, "PART", 2)
    maker, real, done = tiny_filmmaker(), shared.taken_back, []
    monkeypatch.setattr(shared, "taken_back", lambda of, z, *rest: done.append(len(z)) or real(of, z, *rest))
    return lambda folder: recipe.pairs(KINDS[7], maker, folder, 9, "one"), done


def test_a_making_of_pairs_that_is_stopped_keeps_its_parts_and_goes_on(library_of_one, tmp_path, monkeypatch, capsys):
    """Ctrl-C in the second part: a line says what is kept, only the rest is made, and all is as if made at once."""
    make, done = library_of_one
    whole, counted = make(tmp_path / "whole"), shared.taken_back
    assert done == [2, 2, 2, 2, 1] and [path.name for path in (tmp_path / "whole").glob("*.json")] == ["1_32x32.json"]

    def stopped(*args):
        if len(done) == 3:
            raise KeyboardInterrupt
        return counted(*args)

    done.clear()
    monkeypatch.setattr(shared, "taken_back", stopped)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "pairs")
    said = f"stopped with 4 of 9 films of 1_32x32 taken back, kept in {tmp_path / 'pairs'}: run the same again to go on"
    assert said in capsys.readouterr().err.splitlines()
    monkeypatch.setattr(shared, "taken_back", counted)
    done.clear()
    again = make(tmp_path / "pairs")
    assert done == [2, 2, 1] and all(torch.equal(again[key], whole[key]) for key in whole)
    files = sorted(path.name for path in (tmp_path / "pairs").iterdir())
    assert files == ["1_32x32.json", "1_32x32.safetensors"]  # as ever: its parts would take the room twice


def test_parts_of_other_pairs_are_never_taken(library_of_one, tmp_path, monkeypatch):
    make, done = library_of_one
    monkeypatch.setattr(parts, "remove_checkpoint", lambda path: None)
    whole = make(tmp_path)
    (tmp_path / "1_32x32.json").unlink()
    done.clear()
    assert all(torch.equal(of, whole[key]) for key, of in make(tmp_path).items()) and not done
    (tmp_path / "1_32x32.json").unlink()
    monkeypatch.setattr(shared, "LATEST", 0.5)
    make(tmp_path)
    assert done == [2, 2, 2, 2, 1]


def test_clouds_are_shown_as_they_are():
    maker = tiny_filmmaker()
    found, film = recipe.clouds(maker, 3), textures(3, 9, 32, 32, seed=recipe.SEED)
    assert torch.equal(found["film"], shared.to_bytes(film)) and film.std() > 0.1
    torch.testing.assert_close(found["latents"].float(), maker.encode(film), atol=0.02, rtol=0.02)


def test_what_is_taken_back_is_told_its_prompt_and_its_rate(shelf, monkeypatch):
    maker, told = tiny_filmmaker(), []
    network = maker.network

    def recorded(given, clips, prompts, guidance, rate=0):
        told.append((prompts, rate, guidance, given.isnan().all().item()))
        return network(given, clips, prompts, guidance, rate)

    monkeypatch.setattr(maker, "network", recorded, raising=False)
    for number, rate in ((0, 9), (3, 18), (7, 0)):
        kind = KINDS[number]
        source = scenes(kind, number)
        some = [next(source) for _ in range(4)]
        recipe.taken_back(maker, kind, some, render(kind, some, 0), Random(1))
        prompts, said, guidance, nothing = told[-1]
        assert said == rate and guidance in shared.SCALES and nothing and all(prompts)
        moves = any("slides" in p or "bounces" in p or "spins" in p for p in prompts)
        assert moves == (kind.frames > 1)
    assert len({len(p.split()) > 12 for prompts, *_ in told for p in prompts}) == 2  # descriptive ones and short ones


def test_training_leaves_the_encoder_and_its_latents_and_hands_on_the_average(shelf, tmp_path, monkeypatch):
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    monkeypatch.setattr(recipe, "FILMS", {"9_32x32": (4, 2), "1_32x32": (4, 1)})
    seen = []
    monkeypatch.setattr(shared, "Pairs", lambda *args: seen.append(args) or Pairs(*args))
    before, done = tiny_codec(), recipe.train("tiny", 2)
    ((libraries, shares, _),) = seen
    assert shares == [2, 1, recipe.CLOUDS[1]] and shares[-1] > 0 and len(libraries) == 3
    was, now = before.state_dict(), done.model.state_dict()
    assert all(torch.equal(was[key], now[key]) for key in was if not key.startswith("decoder"))
    assert any(not torch.equal(was[key], now[key]) for key in was if key.startswith("decoder"))
    sora = read_card("sora_full")["sha256"]
    home = tmp_path / "runs" / "tiny" / f"of_{sora[:8]}"
    state = load_checkpoint(home / "state")[0]
    assert all(torch.equal(now[key.removeprefix("ema/")], of) for key, of in state.items() if key.startswith("ema/"))
    assert done.card["sora_sha256"] == sora and done.card["steps"] == 2
    assert done.card["autoencoder_sha256"] == read_card("sora_full_autoencoder")["sha256"]
    assert sorted(p.stem for p in (home / "pairs").glob("*.json")) == ["1_32x32", "9_32x32"]

    save_checkpoint(shelf / "sora_full", randomise(tiny_filmmaker().sora, 5).state_dict(), read_card("sora_full"))
    other = recipe.train("tiny", 2)  # of another transformer: another decoder, under its name
    assert other.card["sora_sha256"] == read_card("sora_full")["sha256"] != sora
    assert any(not torch.equal(of, other.model.state_dict()[key]) for key, of in now.items())


def test_it_begins_as_the_autoencoder_that_the_transformer_learned_in(shelf, monkeypatch):
    """One's own one, where the checkpoints are one's own."""
    own = randomise(CausalAutoencoder(AUTOENCODER), 9)
    save_checkpoint(shelf / "sora_full_autoencoder", own.state_dict(), {"config": asdict(AUTOENCODER)})
    save_full_card = {**read_card("sora_full"), "autoencoder_sha256": read_card("sora_full_autoencoder")["sha256"]}
    save_checkpoint(shelf / "sora_full", tiny_filmmaker().sora.state_dict(), save_full_card)
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    monkeypatch.setattr(recipe, "FILMS", {"1_32x32": (4, 1)})
    now = recipe.train("tiny", 1).model.state_dict()
    assert all(torch.equal(of, now[key]) for key, of in own.state_dict().items() if not key.startswith("decoder"))


def test_every_kind_that_is_one_clip_has_films():
    assert set(recipe.FILMS) == {kind.name for kind in KINDS if len(kind.clips) == 1}


# ------------------------------------------------------------------------------------------------ who films with them


def save_decoder(folder, of, seed=7):
    codec = CausalAutoencoder(AUTOENCODER)
    codec.load_state_dict(tiny_codec().state_dict())
    for name, module in codec.named_children():
        if name.startswith("decoder"):
            randomise(module, seed)
    save_checkpoint(folder / "sora_full_decoder", codec.state_dict(),
                    {"config": asdict(AUTOENCODER), "autoencoder_sha256": of})  # fmt: skip
    return codec


def test_films_are_shown_by_the_decoder_that_was_trained_on_from_their_autoencoder(shelf):
    own = read_card("sora_full_autoencoder")["sha256"]
    assert decoded_by("sora_full_decoder", "sora_full_autoencoder") == "sora_full_autoencoder"  # there is none yet
    plain = FullFilmmaker.load()
    codec = save_decoder(shelf, own)
    assert decoded_by("sora_full_decoder", "sora_full_autoencoder") == "sora_full_decoder"
    maker, film = FullFilmmaker.load(), numbers(1, 5, 3, 16, 16).clamp(-1, 1)
    assert torch.equal(maker.encode(film), plain.encode(film))
    z = maker.encode(film)
    assert torch.equal(maker.decode(z), codec.eval().decode(z).clamp(-1, 1))
    assert not torch.allclose(maker.decode(z), plain.decode(z), atol=0.05)
    save_decoder(shelf, "of another")
    assert decoded_by("sora_full_decoder", "sora_full_autoencoder") == "sora_full_autoencoder"
    assert torch.equal(FullFilmmaker.load().decode(z), plain.decode(z))


def test_a_decoder_that_is_damaged_is_told_and_not_passed_over(shelf):
    save_decoder(shelf, read_card("sora_full_autoencoder")["sha256"])
    (shelf / "sora_full_decoder.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="sora_full_decoder"):
        FullFilmmaker.load()
    save_decoder(shelf, read_card("sora_full_autoencoder")["sha256"])
    (shelf / "sora_full_decoder.json").unlink()
    with pytest.raises(CheckpointError, match="sora_full_decoder"):
        decoded_by("sora_full_decoder", "sora_full_autoencoder")
    with pytest.raises(CheckpointError, match="nowhere"):
        decoded_by("sora_full_decoder", "nowhere")


# ------------------------------------------------------------------------------------------------- what is measured


def test_both_decoders_show_the_same_latents(shelf, monkeypatch):
    """A decoder that answers what it is asked beside one that answers nothing, at every time."""

    class Shows(torch.nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def decode(self, z):
            asked[self.value].append(z)
            return torch.full((len(z), 9, 3, 32, 32), self.value)

    asked = {0.5: [], -0.5: []}
    monkeypatch.setattr(measured, "judged", lambda film, text: (bool(film.mean() > 0), "another"))
    monkeypatch.setattr(measured, "device", lambda: "cpu")
    found = measured.shown({"worse": Shows(-0.5), "better": Shows(0.5)}, 3)
    assert found == {"worse": {"right": [0] * 5, "shapes": [0, 0, 3], "wrong": [0, 1, 2]},
                     "better": {"right": [3] * 5, "shapes": [0, 0, 3], "wrong": []}}  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(asked[0.5], asked[-0.5], strict=True))
    lines = measured.table(found, 3).splitlines()
    shapes = ["shape", "right", "none", "another"]
    assert lines[0].split() == ["noised", "to", *(f"{t:g}" for t in measured.TIMES), *shapes]
    assert lines[1].split() == ["worse", *["0"] * 5, "(0\u201356)", "0", "0", "3"]
    assert lines[2].split()[1:6] == ["100"] * 5 and len(lines[0]) == len(lines[1]) == len(lines[2])


def test_a_film_s_shape_is_right_or_none_or_another():
    scene = next(s for s in (measured.world.sample_scene(1, k, "simple", "test") for k in range(99))
                 if s.objects[0].motion == "stays still")  # fmt: skip
    film = measured.world.to_film(measured.world.render([scene], 9))[0]
    text = measured.short_caption(scene)
    other = text.replace(scene.objects[0].shape, "moon" if scene.objects[0].shape != "moon" else "ring")
    assert measured.judged(film, text) == (True, "right") and measured.judged(film, other) == (False, "another")
    assert measured.judged(torch.full_like(film, -1.0), text) == (False, "")
    bent = film.clone()
    bent[::2] = film[::2].roll((3, 5), (-2, -1)) * 0.5 + film[::2] * 0.5
    assert measured.judged(bent, text)[0] is False


def test_what_is_taken_back_begins_at_its_time(shelf, monkeypatch):
    maker, walks = tiny_filmmaker(), []
    drawn = measured.world.sample_scene(1, 0, "simple", "test")
    true = maker.encode(measured.world.to_film(measured.world.render([drawn], 9)))
    walk = maker.walk
    monkeypatch.setattr(maker, "walk", lambda *a, **o: walks.append((a, o)) or walk(*a, **o), raising=False)
    assert torch.equal(measured.taken_back(maker, [drawn], 0.0, 1), true) and not walks
    for t in measured.TIMES[1:]:
        measured.taken_back(maker, [drawn], t, 1)
        (given, clips, texts, _, begins, start), options = walks[-1]
        assert given.isnan().all() and clips == (9,) and begins == t and options["steps"] == round(20 * t)
        assert options["rate"] == 9 and options["sampler"] == "ddpm" and texts == [measured.short_caption(drawn)]
        noise = (start - (1 - t) * true) / t
        assert abs(noise.mean()) < 0.2 and 0.85 < noise.std() < 1.15


class Right(torch.nn.Module):
    """In place of a decoder: it shows what is right (1) at the times that it is told, and says what it was asked."""

    def __init__(self, times=()):
        super().__init__()
        self.times, self.asked = times, []

    def decode(self, z):
        self.asked.append(z)
        time = measured.TIMES[(len(self.asked) - 1) // 2]  # two chunks a time
        return torch.full((len(z), 9, 3, 32, 32), 1.0 if time in self.times else -1.0)


def test_each_time_has_its_own_count_and_the_last_one_tells_which_are_wrong(shelf, monkeypatch):
    monkeypatch.setattr(measured, "CHUNK", 2)
    monkeypatch.setattr(measured, "device", lambda: "cpu")
    monkeypatch.setattr(measured, "judged", lambda film, text: (
        bool(film.mean() > 0), measured.SHAPES[0 if film.mean() > 0 else 1]))  # fmt: skip
    drawn, sample = [], measured.world.sample_scene
    monkeypatch.setattr(measured.world, "sample_scene", lambda *args: drawn.append(args) or sample(*args))
    seeds, back = [], measured.taken_back
    monkeypatch.setattr(measured, "taken_back", lambda *args: seeds.append(args[-1]) or back(*args))
    early, late = Right(times=(0.0, 0.3)), Right(times=(1.0,))
    found = measured.shown({"early": early, "late": late}, 3)
    assert found["early"] == {"right": [3, 3, 0, 0, 0], "shapes": [0, 3, 0], "wrong": [0, 1, 2]}
    assert found["late"] == {"right": [0, 0, 0, 0, 3], "shapes": [3, 0, 0], "wrong": []}
    assert [args[1:] for args in drawn] == [(k, "simple", "test") for k in range(3)]
    assert [len(z) for z in early.asked] == [2, 1] * 5
    assert seeds == [measured.NOISE, measured.NOISE + 2] * 5  # film k from the noise of NOISE + k
    head, one, two = measured.table(found, 3).splitlines()
    assert one.split()[1:] == ["100", "100", "0", "0", "0", "(0\u201356)", "0", "3", "0"]
    assert two.split()[1:] == ["0", "0", "0", "0", "100", "(44\u2013100)", "3", "0", "0"]


def test_a_film_that_is_right_but_for_its_size_counts(monkeypatch):
    """Right in all is the referee's `all`, not `everything`."""
    monkeypatch.setattr(measured, "marks", lambda film, text: {"all": True, "everything": False})
    assert measured.judged(torch.full((9, 3, 32, 32), -1.0), "a small red circle slides right") == (True, "")


def test_a_card_holds_the_copies_and_what_was_taken_back(shelf, monkeypatch):
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    codec = save_decoder(shelf, read_card("sora_full_autoencoder")["sha256"])
    measure = lambda model, count: {"of": model.decoder_half[0].conv1.weight.sum().item()}  # noqa: E731
    monkeypatch.setattr(measured.walt_autoencoder, "measure", measure)
    monkeypatch.setattr(measured, "shown", lambda both, count: {
        whose: {"right": [0] * 5, "shapes": [0, 0, 0], "wrong": [], **measure(of, 0)} for whose, of in both.items()})
    found = measured.metrics("sora_full_decoder", recipe.Trained(codec, {}, None))
    sums = {measured.BEFORE: measure(tiny_codec(), 0)["of"], measured.AFTER: measure(codec, 0)["of"]}
    assert sums[measured.BEFORE] != sums[measured.AFTER] and found["films"] == 2
    for part in ("copies", "taken back"):
        assert {whose: row["of"] for whose, row in found[part].items()} == pytest.approx(sums)
    seen = []
    monkeypatch.setattr(measured, "table", lambda found, films: seen.append(found) or "a table")
    assert measured.evaluate() == "a table" and {w: row["of"] for w, row in seen[0].items()} == pytest.approx(sums)
    save_decoder(shelf, "of another")
    with pytest.raises(CheckpointError, match="sora_full_decoder was not trained on from sora_full_autoencoder"):
        measured.evaluate()


def test_the_small_profile_makes_few_films(shelf, monkeypatch):
    monkeypatch.setenv("SORALAB_PROFILE", "smoke")
    asked = []
    monkeypatch.setattr(recipe, "pairs", lambda kind, maker, folder, films, _: asked.append(films) or library(4, 1, 8))
    monkeypatch.setattr(recipe.loop, "train", lambda *a, **o: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        recipe.train("tiny")
    assert asked == [4] * len(recipe.FILMS)
    monkeypatch.setenv("SORALAB_PROFILE", "laptop")
    with pytest.raises(KeyboardInterrupt):
        recipe.train("tiny")
    assert asked[len(recipe.FILMS) :] == [recipe.FILMS[k.name][0] for k in KINDS if k.name in recipe.FILMS]
    assert replace(recipe.TRAINING, steps=1).seed == recipe.SEED
