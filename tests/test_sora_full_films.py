"""Chapter 16's whole model, from prompts, pictures and films to films: what is known stays, and is seen as it is."""

import inspect
from dataclasses import asdict, replace
from itertools import pairwise

import pytest
import torch
from prose import prose_of
from tiny_full import CONFIG, save_full, tiny_codec, tiny_filmmaker, tiny_full
from tiny_models import OTHER, PROMPT, numbers, save_all

from soralab import sora_full
from soralab.blocks.clips import clip_for, latents
from soralab.diffusion import SAMPLERS, samplers, time_grid
from soralab.diffusion.process import noise_like, seeded
from soralab.files.checkpoints import CheckpointError, read_card, save_checkpoint
from soralab.sora_full import PROCESS, Films, FullFilmmaker, shift_of

PAIR = [PROMPT, OTHER]
SHAPE = (3, 16, 16)


@pytest.fixture(scope="module")
def maker():
    return tiny_filmmaker()


def films(frames, seed=0, batch=2):
    return numbers(batch, frames, *SHAPE, seed=seed).clamp(-1, 1)


class Oracle(torch.nn.Module):
    """In the transformer's place: the velocity that leads to `target`, whatever the noise; and NaN for what is known,
    which nobody is to look at."""

    def __init__(self, target):
        super().__init__()
        self.config, self.head, self.target, self.calls = CONFIG, torch.nn.Linear(1, 1), target, []

    def forward(self, parts, ids):
        (part,) = parts
        self.calls.append((part, ids))
        target = self.target.repeat(len(part.x) // len(self.target), 1, 1, 1, 1)
        return [(part.x - target) / part.times[..., None, None, None]]


def oracle(codec, true, clips):
    """A filmmaker that knows how the film goes."""
    return FullFilmmaker(Oracle(torch.cat([codec.encode(clip) for clip in true.split(clips, 1)], 1).detach()), codec)


def seen(maker, make):
    """What the transformer was shown: [Films]."""
    calls = []
    hook = maker.sora.register_forward_pre_hook(lambda _, args: calls.append((args[0][0], args[1])))
    try:
        made = make()
    finally:
        hook.remove()
    return made, calls


# -------------------------------------------------------------------------------------------------- prompt to film


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_film_is_the_same_whatever_is_filmed_beside_it(maker, guidance):
    options = dict(steps=3, guidance=guidance, size=(5, 16, 24))
    together = maker.film([PROMPT, "a circle spins", OTHER], seed=3, **options)
    for k, prompt in enumerate([PROMPT, "a circle spins", OTHER]):
        torch.testing.assert_close(maker.film([prompt], seed=3 + k, **options)[0], together[k], rtol=1e-4, atol=1e-4)
    assert together.shape == (3, 5, 3, 16, 24) and together.abs().max() <= 1 and together.std() > 0.1


def test_noise_of_one_seed_for_all_is_not_the_same_beside_others(maker, monkeypatch):
    monkeypatch.setattr(sora_full, "noise_like", lambda given, own: noise_like(given, own[0]))
    together = maker.film([PROMPT, PROMPT], seed=3, steps=1, size=(1, 16, 16))
    assert (maker.film([PROMPT], seed=4, steps=1, size=(1, 16, 16))[0] - together[1]).abs().max() > 1e-2


@pytest.mark.parametrize("way", ["film", "animate", "extend", "loop", "join", "edit"])
def test_who_names_no_seed_films_from_the_first_one(way):
    assert inspect.signature(getattr(FullFilmmaker, way)).parameters["seed"].default == 0


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_films_come_from_the_seed_and_the_prompt_alone(maker, sampler):
    """Also where the sampler draws noise at every step."""
    make = dict(steps=2, size=(5, 16, 16), sampler=sampler)
    first = maker.film([PROMPT], seed=5, **make)
    torch.manual_seed(1)
    assert torch.equal(maker.film([PROMPT], seed=5, **make), first)
    torch.testing.assert_close(maker.film(PAIR[::-1], seed=4, **make)[1:], first, rtol=1e-4, atol=1e-4)
    for other in (maker.film([PROMPT], seed=6, **make), maker.film([OTHER], seed=5, **make)):
        assert (other - first).abs().max() > 0.01


@pytest.mark.parametrize("guidance, rows, nulls", [(1.0, 2, 0), (3.0, 4, 2), (0.0, 2, 2)])
def test_guidance_is_away_from_no_prompt_in_one_call(maker, guidance, rows, nulls):
    _, calls = seen(maker, lambda: maker.film(PAIR, steps=2, guidance=guidance, size=(1, 16, 16)))
    assert len(calls) == 2
    for part, ids in calls:
        assert len(ids) == len(part.x) == rows and (ids == 0).all(1).sum() == nulls
        assert ids.shape[1] == len(OTHER.split())  # as long as the longest prompt: padding costs, and says nothing
        assert guidance == 0 or (ids[:2] > 0).any(1).all()  # the films themselves first


@pytest.mark.parametrize("frames", [2, 6, 7, 8])
def test_frames_between_are_cut(maker, frames):
    """A film of six frames is the first six of nine, whose motion takes six."""
    make = dict(seed=1, steps=2)
    whole = maker.film([PROMPT], size=(5 if frames < 5 else 9, 16, 16), rate=frames, **make)
    assert torch.equal(maker.film([PROMPT], size=(frames, 16, 16), **make), whole[:, :frames])


def test_usual_films_are_of_nine_frames(maker):
    """As those of `sora`, from noise of seed 0; and so is a picture that is brought to life."""
    assert maker.film([PROMPT], steps=1).shape == (1, 9, 3, 32, 32)
    first = films(1)
    assert maker.animate(first[:, 0], PAIR, steps=1).shape == (2, 9, *SHAPE)
    assert torch.equal(maker.extend(first, 4, PAIR, steps=1), maker.extend(first, 4, PAIR, 0, steps=1))
    _, calls = seen(maker, lambda: maker.film([PROMPT], size=(1, 16, 16)))
    assert len(calls) == 20 and len(calls[0][1]) == 2  # steps, with guidance


@pytest.mark.parametrize("frames, rate, told", [(9, 0, 9), (6, 0, 6), (17, 0, 17), (9, 18, 18), (1, 0, 0), (1, 9, 0)])
def test_what_the_model_is_told_of_the_motion(maker, frames, rate, told):
    """As many frames as the film has, if nothing is said; a picture has none."""
    _, calls = seen(maker, lambda: maker.film([PROMPT], size=(frames, 16, 16), rate=rate, steps=1))
    assert calls[0][0].rate.tolist() == [told, told]


def test_times_are_bent_as_the_size_asks_and_reported(maker):
    for size, tokens in (((9, 16, 16), 12), ((1, 24, 32), 12), ((17, 16, 16), 20)):
        told = []
        maker.film([PROMPT], size=size, steps=3, callback=lambda *a, told=told: told.append((a[0], float(a[1]))))
        shift = shift_of(tokens)
        want = [shift * t / (1 + (shift - 1) * t) for t in (2 / 3, 1 / 3, 0)]
        assert [n for n, _ in told] == [1, 2, 3] and [t for _, t in told] == pytest.approx(want)


def which(monkeypatch, make) -> str:
    """The sampler that a film is made with."""
    called = []
    spies = {name: lambda *a, name=name, sampler=sampler, **k: called.append(name) or sampler(*a, **k)
             for name, sampler in SAMPLERS.items()}  # fmt: skip
    monkeypatch.setattr(sora_full, "SAMPLERS", spies)
    make()
    (name,) = called
    return name


@pytest.mark.parametrize("steps, usual", [(7, "dpm_solver_pp"), (8, "ddpm"), (20, "ddpm")])
def test_fresh_noise_where_there_are_steps_for_it(maker, monkeypatch, steps, usual):
    assert which(monkeypatch, lambda: maker.film([PROMPT], steps=steps, size=(1, 16, 16))) == usual


@pytest.mark.parametrize("told", [None, [PROMPT]])
def test_an_edit_adds_no_fresh_noise(maker, monkeypatch, told):
    """It would take away what the edit is to keep. Who asks for it gets it."""
    edit = dict(films=films(1, batch=1), prompts=[PROMPT], strength=0.5, told=told, steps=12)
    assert which(monkeypatch, lambda: maker.edit(**edit)) == "dpm_solver_pp"
    assert which(monkeypatch, lambda: maker.edit(**edit, sampler="ddpm")) == "ddpm"


def test_an_edits_fresh_noise_is_not_that_which_covered_the_film(maker, monkeypatch):
    drawn, plain = [], noise_like
    monkeypatch.setattr(sora_full, "noise_like", lambda x, own: drawn.append(plain(x, own)) or drawn[-1])
    monkeypatch.setattr(samplers, "noise_like", lambda x, own: drawn.append(plain(x, own)) or drawn[-1])
    maker.edit(films(1, batch=1), [PROMPT], 0.5, steps=3, sampler="ddpm")
    assert len(drawn) == 3 and all((a - b).abs().max() > 0.1 for a, b in pairwise(drawn))


@pytest.mark.parametrize("sampler", ["dpm_solver_pp", "ddim", "heun"])
def test_what_is_free_is_sampled_and_what_is_known_stays(sampler):
    """The velocity of the known latents, which is NaN here, does no harm, and they are not taken to the target."""
    target = numbers(2, 3, 16, 4, 4)
    maker = FullFilmmaker(Oracle(target), None)
    given = maker.empty(2, (9,), 16, 16)
    assert given.isnan().all() and given.shape == (2, 3, 16, 4, 4)
    given[:, 1] = known = numbers(2, 16, 4, 4, seed=1)
    found = maker.walk(given, (9,), PAIR, 0, steps=4, sampler=sampler)
    assert torch.equal(found[:, 1], known)
    torch.testing.assert_close(found[:, [0, 2]], target[:, [0, 2]], rtol=1e-4, atol=1e-4)
    for part, _ in maker.sora.calls:
        assert not part.times[:, 1].any() and (part.times[:, [0, 2]] == part.times[:, :1]).all()
        assert part.times[0, 0] > 0


# -------------------------------------------------------------------------------------------- what each ability is told

MADE = {  # what is done, the clips, and of which frames the latents are known that stand where
    "animate": (lambda m, a, b: m.animate(a[:, 0], PAIR, 9, steps=1), (9,), [(slice(0, 1), "a", slice(0, 1))], 9),
    "animate, 3 frames": (lambda m, a, b: m.animate(a[:, 0], PAIR, 3, steps=1), (5,),
                          [(slice(0, 1), "a", slice(0, 1))], 3),
    "animate slowly": (lambda m, a, b: m.animate(a[:, 0], PAIR, 9, rate=18, steps=1), (9,),
                       [(slice(0, 1), "a", slice(0, 1))], 18),
    "extend": (lambda m, a, b: m.extend(a[:, :9], 8, PAIR, steps=1), (17,), [(slice(0, 3), "a", slice(0, 9))], 0),
    "extend a long one": (lambda m, a, b: m.extend(a, 3, PAIR, rate=18, steps=1), (13,),
                          [(slice(0, 3), "a", slice(5, 14))], 18),
    "extend a short one": (lambda m, a, b: m.extend(a[:, :7], 4, PAIR, steps=1), (9,),
                           [(slice(0, 2), "a", slice(2, 7))], 0),
    "extend eight": (lambda m, a, b: m.extend(a[:, :8], 4, PAIR, steps=1), (9,), [(slice(0, 2), "a", slice(3, 8))], 0),
    "backwards": (lambda m, a, b: m.extend(a, 6, PAIR, backwards=True, steps=1), (9, 9),
                  [(slice(3, 6), "a", slice(0, 9))], 0),
    "backwards, a short one": (lambda m, a, b: m.extend(a[:, :4], 1, PAIR, backwards=True, steps=1), (1, 1),
                               [(slice(1, 2), "a", slice(0, 1))], 0),
    "join": (lambda m, a, b: m.join(a[:, :7], b, 8, PAIR, steps=1), (5, 9, 5),
             [(slice(0, 2), "a", slice(2, 7)), (slice(5, 7), "b", slice(0, 5))], 0),
    "join four and eight": (lambda m, a, b: m.join(a[:, :4], b[:, :8], 8, PAIR, steps=1), (1, 9, 5),
                            [(slice(0, 1), "a", slice(3, 4)), (slice(4, 6), "b", slice(0, 5))], 0),
    "join a picture": (lambda m, a, b: m.join(a[:, :1], b, 2, PAIR, steps=1), (1, 5, 5),
                       [(slice(0, 1), "a", slice(0, 1)), (slice(3, 5), "b", slice(0, 5))], 0),
    "loop": (lambda m, a, b: m.loop(a, 3, PAIR, steps=1), (5, 5, 5),
             [(slice(0, 2), "a", slice(9, 14)), (slice(4, 6), "a", slice(0, 5))], 0),
}  # fmt: skip


def asked_rightly(maker, name):
    """Assert that the transformer is shown what is known, in its place and at time 0, and all else at one time."""
    make, clips, known, rate = MADE[name]
    given = {"a": films(14, 1), "b": films(12, 2)}
    _, calls = seen(maker, lambda: make(maker, given["a"], given["b"]))
    ((part, _),) = calls
    assert part.clips == clips and (part.rate == rate).all() and len(part.x) == 4
    free = torch.ones(part.x.shape[1], dtype=torch.bool)
    for where, which, frames in known:
        free[where] = False
        want = maker.encode(given[which][:, frames]).repeat(2, 1, 1, 1, 1)
        torch.testing.assert_close(part.x[:, where], want)
    assert (part.times[:, free] == 1).all() and not part.times[:, ~free].any() and free.any()
    noise = noise_like(part.x[:2], seeded(0, 2))[:, free]
    torch.testing.assert_close(part.x[:, free], noise.repeat(2, 1, 1, 1, 1))


@pytest.mark.parametrize("name", MADE)
def test_what_is_known_is_shown_in_its_place_and_at_time_0(maker, name):
    asked_rightly(maker, name)


WRONG = {
    "one time for all": ("Films", lambda x, t, clips, rate: Films(x, t.amax(1, True).expand_as(t), clips, rate)),
    "times the other way round": ("Films", lambda x, t, clips, rate: Films(x, t.amax(1, True) - t, clips, rate)),
    "times of the neighbours": ("Films", lambda x, t, clips, rate: Films(x, t.roll(1, 1), clips, rate)),
    "frames of another film": ("Films", lambda x, t, clips, rate: Films(x.flip(0), t, clips, rate)),
    "a shorter memory": ("MEMORY", 5),
    "a longer edge": ("EDGE", 9),
    "a longer clip": ("clip_for", lambda frames: 4 + clip_for(frames)),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_versions_show_something_else(maker, monkeypatch, name):
    what, wrong = WRONG[name]
    monkeypatch.setattr(sora_full, what, wrong)
    with pytest.raises((AssertionError, ValueError, RuntimeError)):
        for ability in ("extend a long one", "backwards", "join"):
            asked_rightly(maker, ability)


def test_the_page_shows_the_times_that_each_task_has(maker):
    """Its block of lines, one a task: t for what is filmed, 0 for what is known, a bar between clips."""
    tasks = {
        "a film of nine frames": lambda: maker.film([PROMPT], steps=1, size=(9, 16, 16)),
        "from a picture, nine frames": lambda: maker.animate(films(1)[:1, 0], [PROMPT], steps=1),
        "nine frames, and nine more": lambda: maker.extend(films(9)[:1], 9, [PROMPT], steps=1),
        "nine frames, and nine before": lambda: maker.extend(films(9)[:1], 9, [PROMPT], backwards=True, steps=1),
        "from one film to another": lambda: maker.join(films(9)[:1], films(9)[1:], 9, [PROMPT], steps=1),
    }
    for task, make in tasks.items():
        ((part, _),) = seen(maker, make)[1]
        strings = torch.where(part.times[0] > 0, ord("t"), ord("0")).split([latents(clip) for clip in part.clips])
        told = " | ".join(" ".join(map(chr, clip.tolist())) for clip in strings)
        assert f"\n{task:34s}{told}\n" in prose_of("16_sora"), told


# ---------------------------------------------------------------------------------------------- what each ability films


@torch.no_grad()
def test_who_knows_how_it_goes_on_films_it():
    """With the true velocity, what is filmed is the autoencoder's copy of the truth, frame for frame; and what was
    given is not even copied."""
    codec, true, other = tiny_codec(), films(27, 3), films(9, 4)

    def copy(*clips):
        parts = true[:, : sum(clips)].split(clips, 1)
        return [codec.decode(codec.encode(part)).clamp(-1, 1) for part in parts]

    def check(made, want):
        torch.testing.assert_close(made, want, rtol=1e-4, atol=1e-4)

    steps = dict(steps=2)
    maker = oracle(codec, true[:, :17], (17,))
    check(maker.film(PAIR, size=(16, 16, 16), **steps), copy(17)[0][:, :16])
    check(maker.animate(true[:, 0], PAIR, 15, **steps), torch.cat([true[:, :1], copy(17)[0][:, 1:15]], 1))
    check(maker.extend(true[:, :9], 7, PAIR, **steps), torch.cat([true[:, :9], copy(17)[0][:, 9:16]], 1))
    longer = torch.cat([other, true[:, :9]], 1)
    check(maker.extend(longer, 8, PAIR, **steps), torch.cat([longer, copy(17)[0][:, 9:]], 1))
    maker = oracle(codec, true[:, :18], (9, 9))
    back = maker.extend(torch.cat([true[:, 9:18], other], 1), 6, PAIR, backwards=True, **steps)
    check(back, torch.cat([copy(9, 9)[0][:, 3:], true[:, 9:18], other], 1))
    maker = oracle(codec, true[:, :19], (5, 9, 5))
    a, b = torch.cat([other, true[:, :5]], 1), torch.cat([true[:, 14:19], other], 1)
    middle = copy(5, 9, 5)[1]  # of more frames than are asked for, those that lead over in steps as even as can be
    for between, kept in ((7, [0, 1, 3, 4, 5, 7, 8]), (8, [0, 1, 2, 3, 5, 6, 7, 8]), (6, [0, 2, 3, 5, 6, 8])):
        check(maker.join(a, b, between, PAIR, **steps), torch.cat([a, middle[:, kept], b], 1))
    again = torch.cat([true[:, 14:19], other, true[:, :5]], 1)
    check(maker.loop(again, 9, PAIR, **steps), torch.cat([again, middle], 1))
    maker = oracle(codec, true[:, :9], (9,))
    check(maker.edit(other[:, :6], PAIR, 0.3, **steps), copy(9)[0][:, :6])


ABILITIES = {  # (maker, films of 14 frames, options) -> films, and where the given frames stand in them
    "animate": (lambda m, a, **o: m.animate(a[:, 0], PAIR, 5, **o), slice(0, 1), slice(0, 1)),
    "extend": (lambda m, a, **o: m.extend(a, 4, PAIR, **o), slice(0, 14), slice(0, 14)),
    "backwards": (lambda m, a, **o: m.extend(a, 4, PAIR, backwards=True, **o), slice(0, 14), slice(4, 18)),
    "join": (lambda m, a, **o: m.join(a, a.flip(0), 3, PAIR, **o), slice(0, 14), slice(0, 14)),
    "loop": (lambda m, a, **o: m.loop(a, 3, PAIR, **o), slice(0, 14), slice(0, 14)),
}
LENGTHS = {"animate": 5, "extend": 18, "backwards": 18, "join": 31, "loop": 17}


@pytest.mark.parametrize("name", ABILITIES)
def test_given_frames_are_kept_bit_for_bit_and_each_film_is_its_own(maker, name):
    make, given, kept = ABILITIES[name]
    a = films(14)
    made = make(maker, a, steps=2, seed=7)
    assert made.shape == (2, LENGTHS[name], *SHAPE) and torch.equal(made[:, kept], a[:, given])
    assert name != "join" or torch.equal(made[:, 17:], a.flip(0))
    assert made.abs().max() <= 1 and made.isfinite().all()
    assert (make(maker, a, steps=2, seed=8) - made).abs().max() > 1e-2
    changed = torch.cat([a[:1] * 0.3, a[1:]])  # a neighbour; to join, the film that the other is led to
    if name != "join":
        torch.testing.assert_close(make(maker, changed, steps=2, seed=7)[1], made[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name, heard, unheard", [
    ("animate", [0], [1, 13]), ("extend", [5, 13], [0, 4]), ("backwards", [0, 8], [9, 13]),
    ("loop", [0, 4, 9, 13], [5, 8]),
])  # fmt: skip
def test_one_known_frame_changes_what_is_filmed(maker, name, heard, unheard):
    """And one that is too far away to be remembered changes nothing."""
    make, given, kept = ABILITIES[name]
    a = films(14)

    def new(of):
        made = make(maker, of, steps=1)
        return torch.cat([made[:, : kept.start], made[:, kept.stop :]], 1)

    before = new(a)
    for frame in (*heard, *unheard):
        other = a.clone()
        other[:, frame] *= -1
        differ = (new(other) - before).abs().max()
        assert (differ > 1e-3) if frame in heard else (differ == 0), frame


@pytest.mark.parametrize("backwards", [False, True])
def test_no_frame_more_is_the_film(maker, backwards):
    assert torch.equal(maker.extend(films(6), 0, PAIR, backwards=backwards, steps=1), films(6))


# ---------------------------------------------------------------------------------------------------------------- edits


def test_an_edit_of_strength_0_is_the_film_itself(maker):
    a = films(7)
    made, calls = seen(maker, lambda: maker.edit(a, PAIR, 0))
    assert torch.equal(made, a) and made is not a and not calls


def test_an_edit_begins_with_so_much_noise(maker):
    a = films(7)
    _, calls = seen(maker, lambda: maker.edit(a, PAIR, 0.4, seed=5, steps=2, guidance=1.0))
    part = calls[0][0]
    z = maker.encode(torch.cat([a, a[:, 6:], a[:, 6:]], 1))  # its last frame stands still up to a clip's end
    assert part.clips == (9,) and part.times[0].tolist() == pytest.approx([0.4] * 3)
    torch.testing.assert_close(part.x, 0.6 * z + 0.4 * noise_like(z, seeded(5, 2)), rtol=1e-5, atol=1e-5)
    assert calls[1][0].times.max() < 0.4


@pytest.mark.parametrize("least", [5e-324, 1e-300, 1e-7])
def test_an_edit_of_next_to_nothing_is_the_film_too(maker, least):
    assert torch.equal(maker.edit(films(7), PAIR, least), films(7))


def test_an_edit_of_strength_1_is_a_new_film(maker):
    made = maker.edit(films(7), PAIR, 1, seed=5, steps=3, rate=9)
    torch.testing.assert_close(made, maker.film(PAIR, 5, (9, 16, 16), steps=3)[:, :7], rtol=1e-4, atol=1e-4)


def test_an_edit_by_inversion_finds_the_way_back(maker):
    """With the prompt and the rate that it was taken back with, the film comes back; noise would be another film."""
    a, make = films(9), dict(guidance=1.0, sampler="ddim", steps=24)
    copy = maker.decode(maker.encode(a))

    def off(strength, prompts=PAIR, **options):
        return float((maker.edit(a, prompts, strength, **options, **make) - copy).abs().mean())

    for rate in (0, 9):
        assert off(0.15, told=PAIR, rate=rate) < 0.2 * off(0.15, rate=rate)
        assert off(0.15, told=PAIR, rate=rate) < 0.2 * off(0.15, told=PAIR[::-1], rate=rate)
    assert off(0.15, told=PAIR, seed=1) == off(0.15, told=PAIR, seed=2)
    assert maker.edit(a[:, :6], PAIR, 0.15, told=PAIR, **make).shape == (2, 6, *SHAPE)


def test_an_edit_by_inversion_goes_back_unguided_along_the_times_of_the_way_there(maker):
    _, calls = seen(maker, lambda: maker.edit(films(9), PAIR, 0.8, told=PAIR[::-1], steps=3, guidance=3.0))
    back, there = calls[:3], calls[3:]
    assert [len(part.x) for part, _ in back] == [2] * 3 and all(len(part.x) == 4 for part, _ in there)
    times = time_grid(3, 0.8, maker.shift(maker.encode(films(9)))).tolist()
    assert [part.times.max().item() for part, _ in there] == pytest.approx(times[:3])
    assert {round(part.times.max().item(), 4) for part, _ in back} <= {round(t, 4) for t in times}


@pytest.mark.parametrize("options, says", [
    ({"prompts": []}, "prompts is"), ({"prompts": PROMPT}, "prompts is"), ({"sampler": "foo"}, "sampler is 'foo'"),
    ({"seed": 1.0}, "seed is 1.0"), ({"seed": -1}, "seed is -1"), ({"steps": 0}, "steps is 0"),
    ({"guidance": 31}, "guidance is 31"),
])  # fmt: skip
def test_what_a_film_does_not_take_is_named(maker, options, says):
    with pytest.raises(ValueError, match=f"^{says}"):
        maker.film(**{"prompts": [PROMPT], "steps": 1, "size": (1, 16, 16), **options})


# --------------------------------------------------------------------------------------------------- sizes, checkpoints


@pytest.mark.parametrize("size, near", [
    ((30, 40), "32x40 or 24x40"), ((32, 44), "32x48 or 32x40"), ((4, 16), "8x16"), ((0, 16), "8x16"),
    ((33, 33), "32x32 or 40x40"),
])  # fmt: skip
def test_sizes_that_the_patches_do_not_divide_are_refused(maker, size, near):
    says = f"size is {size[0]}x{size[1]}; it takes sides that 8 divides, such as {near}$"
    odd = torch.zeros(1, 9, 3, *size)
    for make in (lambda: maker.film([PROMPT], size=(9, *size)), lambda: maker.animate(odd[:, 0], [PROMPT]),
                 lambda: maker.extend(odd, 4, [PROMPT]), lambda: maker.edit(odd, [PROMPT], 0.5),
                 lambda: maker.join(odd, odd, 4, [PROMPT])):  # fmt: skip
        with pytest.raises(ValueError, match=says):
            make()


@pytest.mark.parametrize("prompt, says", [("a red elephant", "elephant"), ("red " * 49, "49 words")])
def test_a_prompt_that_cannot_be_read(maker, prompt, says):
    with pytest.raises(ValueError, match=says):
        maker.film([PROMPT, prompt], steps=1)


def test_what_is_saved_films_what_was_filmed(maker, tmp_path, monkeypatch):
    monkeypatch.setenv("SORALAB_CHECKPOINTS", str(tmp_path))
    save_full(tmp_path)
    save_all(tmp_path)
    loaded = FullFilmmaker.load()
    assert loaded.sora.config == CONFIG and not loaded.sora.training and not loaded.autoencoder.training
    make = dict(steps=1, size=(5, 16, 16))
    assert torch.equal(loaded.film([PROMPT], **make), maker.film([PROMPT], **make))
    with pytest.raises(CheckpointError, match="sora holds no FullSora"):
        FullFilmmaker.load("sora")
    save_full(tmp_path, "orphan", "nowhere")
    (tmp_path / "nowhere.safetensors").unlink()
    with pytest.raises(CheckpointError, match="nowhere"):
        FullFilmmaker.load("orphan")


def test_a_model_films_through_the_autoencoder_that_it_was_trained_with(tmp_path, monkeypatch):
    monkeypatch.setenv("SORALAB_CHECKPOINTS", str(tmp_path))
    save_full(tmp_path)
    own = read_card("sora_full_autoencoder")["sha256"]
    save_full(tmp_path, autoencoder_sha256=own)
    assert FullFilmmaker.load().sora.config == CONFIG
    save_full(tmp_path, autoencoder_sha256="of another")
    with pytest.raises(CheckpointError, match="sora_full was trained with another sora_full_autoencoder"):
        FullFilmmaker.load()
    wide = replace(CONFIG, channels=64, patch=1)  # as many values in a token
    save_checkpoint(tmp_path / "sora_full", tiny_full(wide).state_dict(),
                    {"config": asdict(wide), "autoencoder": "sora_full_autoencoder"})  # fmt: skip
    with pytest.raises(CheckpointError, match="was trained with another"):
        FullFilmmaker.load()


def test_the_process_is_the_straight_one():
    """What the transformer's velocity means: noise less film."""
    x0, eps, t = numbers(1, 2), numbers(1, 2, seed=1), torch.tensor([0.3])
    torch.testing.assert_close(PROCESS.add_noise(x0, eps, t), 0.7 * x0 + 0.3 * eps)
