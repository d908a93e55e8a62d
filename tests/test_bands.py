"""The bands: right runs of other seeds lie inside, and runs with a mistake in them are called wrong.

The runs are stored (band_runs/NAME.json, made by band_runs.py); so what is tested here is the verdict, and that the
bands shipped in data/bands are those of the recipes as they were run.
"""

import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from soralab import figures
from soralab.experiments import bands as maker
from soralab.figures import bands, curves, watched
from soralab.figures.bands import STRETCHES, Band, stretches, verdict

RUNS = Path(__file__).parent / "band_runs"
CHAPTERS = maker.NAMES
KINDS = ("rate x 10", "rate / 10", "sign", "head", "shuffled")
ALONE = ("tune_a_video",)  # one film and one prompt: there is no other to be mixed up with, so none is "shuffled"
NAMED = {  # what the line asks about, of each mistake; a question, so another mistake may look the same
    "rate x 10": "learning rate too large",
    "rate / 10": "learning rate too small",
    "head": "is a layer frozen",
}


def runs_of(name):
    """{kind: [log, ...]} of a chapter's stored runs."""
    found = {}
    for run in json.loads((RUNS / f"{name}.json").read_text(encoding="utf-8")):
        found.setdefault(run["kind"], []).append({key: np.array(v, float) for key, v in run["log"].items()})
    return found


def middle(name):
    """The log of a run that goes right through the middle of a band."""
    band = bands.load_band(name)
    step = (np.arange(STRETCHES) + 1) * band.steps / STRETCHES
    log = {"step": np.concatenate([step, band.probes["lag"]["step"]]),
           "loss": np.concatenate([np.exp(band.mean), np.full(3, np.nan)])}  # fmt: skip
    for key, told in band.probes.items():
        mean = np.exp(told["mean"]) if key in bands.LOGARITHMIC else np.array(told["mean"])
        log[key] = np.concatenate([np.full(STRETCHES, np.nan), mean])
    order = np.argsort(log["step"], kind="stable")
    return {key: values[order] for key, values in log.items()}


@pytest.fixture(params=CHAPTERS)
def chapter(request):
    return request.param


def test_wrong_runs_are_called_wrong(chapter):
    runs = runs_of(chapter)
    assert set(KINDS) - set(runs) == ({"shuffled"} if chapter in ALONE else set())
    for kind, logs in runs.items():
        if kind != "good":
            said = [verdict(log, chapter) for log in logs]
            assert sum(each.right is False for each in said) >= 5 / 6 * len(said), (kind, *map(str, said))
            asks = NAMED.get(kind, "")
            assert all(re.search(asks, each.text) for each in said if each.right is False), [*map(str, said)]


def test_right_runs_are_inside(chapter):
    said = [verdict(log, chapter) for log in (*runs_of(chapter).get("good", []), middle(chapter))]
    assert sum(each.right is True for each in said) >= 0.9 * len(said), [*map(str, said)]


def test_a_run_without_an_average_has_the_loss_of_a_right_one_and_is_wrong(chapter):
    """Its probe is 0 where the average is the last weights, 1 where it never moves (test_probes.py). Chapter 05 has no
    average of weights, so 0 is right there; what it does average, the codes, has runs of its own: "codebook"."""
    right = middle(chapter)
    for lag, says in ((0.0, "the average does not lie as far behind"), (1.0, "the average has stayed at the start")):
        for after in (0.1, 1.0):
            said = verdict(right | {"lag": np.where(np.isnan(right["lag"]), np.nan, lag)}, chapter, after)
            if chapter == "vqvae" and lag == 0:
                assert said.right and "codebook" in runs_of(chapter)
            else:
                assert said.right is False and says in str(said)


def test_most_mistakes_are_told_by_a_tenth_of_the_steps(chapter):
    """Not mixed labels everywhere: a tenth of the steps may be too little to have learnt what they should be."""
    runs = runs_of(chapter)
    for kind in ("rate x 10", "rate / 10", "head"):
        said = [verdict(log, chapter, after=0.1) for log in runs[kind]]
        assert said and all(each.right is False for each in said), (kind, *map(str, said))
    assert all(verdict(log, chapter, after=0.1).right for log in (*runs.get("good", []), middle(chapter)))


def test_the_picture_says_the_verdict(chapter):
    log = runs_of(chapter)["head"][0]
    assert "Verdict at step" in (alt := figures.loss_curve(log, band=chapter).alt) and "is a layer frozen?" in alt


# ------------------------------------------------------------------------------------------------- runs made by numbers


def run_of(rng, steps=200, rate=1.0, **changes):
    """A log of a loss that falls, with what a right run's probes say; `changes` are what another says."""
    step = np.arange(2, steps + 1, 2.0)
    loss = (0.2 + 2 * np.exp(-rate * step / 40)) * np.exp(0.05 * rng.standard_normal(len(step)))
    marks, nan = {20: 0.1, 60: 0.3, 200: 1.0}, np.full(len(step), np.nan)
    log = {"step": step, "loss": loss, **{key: nan.copy() for key in ("held", "pairing", "lag", "way", "still")}}
    for mark, share in marks.items():
        told = {"held": 0.2 + 2 * np.exp(-mark / 40), "pairing": 3 * share, "lag": 0.2, "way": share, "still": 0.0}
        for key, value in told.items():
            told[key] = value * math.exp(0.01 * rng.standard_normal())
        for key, value in (told | changes).items():
            log[key][step == mark] = value
    return log


@pytest.fixture(scope="module")
def band():
    rng = np.random.default_rng(1)
    return Band.of([run_of(rng) for _ in range(6)])


def test_one_in_ten_right_runs_at_most_is_called_wrong(band):
    rng = np.random.default_rng(2)
    wrong = [not verdict(run_of(rng), band).right for _ in range(300)]
    assert sum(wrong) <= 15


@pytest.mark.parametrize("changes, says", [
    ({"still": 2.0}, r"2 tensors of weights are what they were at the start: is a layer frozen\?"),
    ({"still": 1.0}, r"1 tensor of weights is what it was at the start: is a layer frozen\?"),
    ({"lag": 0.0}, r"the average does not lie as far behind as in right runs: is it off, or never updated\?"),
    ({"lag": 1.0}, r"the average has stayed at the start: is it off, or never updated\?"),
    ({"way": 0.01}, r"the weights have gone 0.1 times as far as in right runs: is the learning rate too small\?"),
    ({"way": 1.0}, r"the weights have gone 10 times as far as in right runs: is the learning rate too large\?"),
    ({"pairing": 0.1}, r"a wrong label .* does less harm than in right runs: are they mixed up, or hardly learnt\?"),
    ({"held": 4.0}, r"the averaged network's loss on unseen examples is \d.\d\d times that of right runs"),
    ({"way": 0.15}, r"wrong; the weights have gone 1\.\d+ times as far as in right runs \("),
    ({"rate": 0.1}, r"the loss falls about (9|10) times too slowly: is the learning rate too small\?"),
    ({"rate": -0.2}, r"the loss rises, or is not above zero: is a sign flipped\?"),
])  # fmt: skip
def test_each_mistake_leaves_its_trace(band, changes, says):
    said = verdict(run_of(np.random.default_rng(3), **changes), band)
    assert said.right is False and re.search(says, str(said)), str(said)


def test_what_is_measured_before_the_first_stretch_is_done_is_judged(band):
    """No loss can be compared yet, and the line gives no number of one."""
    early = replace(band, probes={name: {"runs": 6, "step": [4.0], "mean": [mean], "spread": [0.01]}
                                  for name, mean in (("still", 0.0), ("held", 0.1))})  # fmt: skip
    log = {"step": np.arange(1.0, 9), "loss": np.ones(8)}
    nan = np.full(8, np.nan)
    for name, value, says in (("still", 2.0, "2 tensors of weights"), ("held", 9.0, r"examples is \d+\.\d\d times")):
        said = verdict(log | {name: np.where(log["step"] == 4, value, nan)}, early)
        assert said.right is False and math.isnan(said.share) and re.search(f"step 8: wrong; .*{says}", str(said))
    assert verdict(log | {"still": np.where(log["step"] == 4, 0.0, nan)}, early).right
    assert verdict(log, early).right is None


def test_a_loss_that_is_below_zero_is_wrong(band):
    log = run_of(np.random.default_rng(4))
    said = verdict(log | {"loss": -log["loss"]}, band)
    assert said.right is False and said.share == 0 and "not above zero" in str(said)


def test_learning_better_is_no_fault_but_another_loss_is(band):
    rng = np.random.default_rng(5)
    assert verdict(run_of(rng, held=0.1, pairing=9.0), band).right
    log = run_of(rng)
    assert verdict(log | {"loss": 0.5 * log["loss"]}, band).right is False


def test_the_verdict_waits_and_judges_by_what_there_is(band):
    log = run_of(np.random.default_rng(6))
    early = {key: value[:9] for key, value in log.items()}
    assert verdict(early, band).right is None and "too early" in str(verdict(early, band))
    assert "step 20: right so far, 2 of 2 stretches" in str(verdict(log, band, after=0.1))
    # What comes after the share asked for does not count: this run goes wrong at its half.
    late = log | {"loss": np.where(log["step"] > 100, 9.0, log["loss"])}
    assert verdict(late, band, after=0.5).right and not verdict(late, band).right
    alone = {key: log[key] for key in ("step", "loss")}
    assert "judged by its loss alone" in str(verdict(alone, band)) and "alone" not in str(verdict(log, band))
    assert verdict({key: value[::3] for key, value in alone.items()}, band).right  # lines of the log may be rarer


def test_one_stretch_outside_is_no_fault(band):
    log = run_of(np.random.default_rng(7))
    for places, right in (((5,), True), ((5, 6, 7, 8), True), ((5, 6, 7, 8, 9), False)):
        bad = np.isin(np.ceil(log["step"] / 10) - 1, places)
        said = verdict(log | {"loss": np.where(bad, 3 * log["loss"], log["loss"])}, band)
        assert said.right is right and said.share == pytest.approx(1 - len(places) / 20)
    assert figures.inside_band(log, band) == 1


def rarer(log, count):
    """A log's loss alone, at `count` of its lines evenly to the last."""
    keep = np.linspace(len(log["step"]) / count, len(log["step"]), count).astype(int) - 1
    return {key: log[key][keep] for key in ("step", "loss")}


@pytest.mark.parametrize("known", [2, 5, 9])
def test_a_band_of_sparse_logs_calls_no_run_right_and_tells_one_that_is_far_off(known):
    rng = np.random.default_rng(11)
    sparse = Band.of([rarer(run_of(rng), known) for _ in range(6)])
    assert np.isfinite(sparse.mean).sum() == np.isfinite(sparse.limits()[0]).sum() == known
    log = run_of(rng)
    for run in (log, rarer(log, known)):
        said = verdict(run, sparse)
        assert said.right is None and said.share == figures.inside_band(run, sparse) >= 0.8
        assert f"cannot tell; the band's runs were logged in {known} of 20 stretches" in str(said)
    wrong = verdict(log | {"loss": 100 * log["loss"]}, sparse)
    assert wrong.right is False and wrong.share == 0 and f"(0 of {known} stretches" in str(wrong)
    picture = figures.loss_curve(log, sparse)
    assert "cannot tell" in picture.alt and picture.data != figures.loss_curve(log).data
    elsewhere = {key: log[key][20:26] for key in ("step", "loss")}  # steps 42 to 52
    if known == 2:  # logged at 100 and 200: nothing to compare
        assert verdict(elsewhere, sparse).right is None and math.isnan(verdict(elsewhere, sparse).share)


def test_a_band_that_lacks_a_few_stretches_judges_by_the_others():
    """As logged every 20 steps of 200 to the half, and densely from there."""
    rng = np.random.default_rng(12)

    def gaps(log):
        keep = (log["step"] > 100) | (log["step"] % 20 == 0)
        return {key: log[key][keep] for key in ("step", "loss")}

    band = Band.of([gaps(run_of(rng)) for _ in range(6)])
    assert np.isnan(band.mean).sum() == 5
    said, slow = verdict(run_of(rng), band), verdict(run_of(rng, rate=0.1), band)
    assert said.right and "15 of 15 stretches" in str(said)
    assert slow.right is False and re.search("the loss falls about (9|10) times too slowly", str(slow))


def test_stretches_are_means_of_the_logarithm():
    step = np.arange(1.0, 101)
    log = {"step": step, "loss": np.exp(step)}
    assert stretches(log, 100) == pytest.approx([5 * k + 3 for k in range(STRETCHES)])
    half = {key: value[:52] for key, value in log.items()}
    assert np.isfinite(stretches(half, 100)).sum() == 10  # the eleventh is not done
    longer = stretches(log, 50)
    assert longer[0] == pytest.approx((1 + 2) / 2) and np.isfinite(longer).all()


def test_limits_of_a_few_runs_are_wide_and_those_of_many_are_the_normal_laws():
    few, many = (bands.half_width(np.array([0.1]), runs, "loss", 0.05)[0] for runs in (3, 4000))
    assert many == pytest.approx(1.96 * 0.1, rel=2e-3)
    mixed = math.sqrt((bands.WORTH * bands.PRIOR["loss"] ** 2 + 2 * 0.1**2) / (bands.WORTH + 2))
    assert few == pytest.approx(2.4469 * mixed * math.sqrt(4 / 3), rel=1e-4)  # Student's t with 6 degrees of freedom


def test_a_band_survives_json_and_has_a_name(tmp_path, monkeypatch, band):
    rng = np.random.default_rng(8)
    logs = [run_of(rng) for _ in range(len(maker.SEEDS))]
    path = maker.write_band("unet", lambda seed: logs[seed - 1], folder=tmp_path)
    assert path == tmp_path / "unet.json" and path.stat().st_size < 4000
    again, made = bands.load_band("unet", tmp_path), Band.of(logs)
    assert again.mean == pytest.approx(made.mean, rel=1e-4) and again.steps == 200 and again.runs == len(logs)
    assert again.probes["way"]["mean"] == pytest.approx(made.probes["way"]["mean"], rel=1e-4)
    monkeypatch.setattr(bands, "BANDS", tmp_path)
    run = run_of(rng)
    assert figures.loss_curve(run, band="unet").alt == figures.loss_curve(run, band=again).alt
    assert figures.loss_curve(run, band=again).data != figures.loss_curve(run).data
    with pytest.raises(ValueError, match="band: got 'vit', takes .* one of: unet"):
        figures.loss_curve(run, band="vit")


def test_what_is_no_band_is_refused(tmp_path):
    log = run_of(np.random.default_rng(9))
    with pytest.raises(ValueError, match="got no logs"):
        Band.of([])
    with pytest.raises(ValueError, match=r"end at steps \[100.0, 200.0\]"):
        Band.of([log, {key: value[:50] for key, value in log.items()}])
    with pytest.raises(ValueError, match="got mean of shape"):
        Band(100, 3, np.zeros(3), np.zeros(STRETCHES))
    with pytest.raises(ValueError, match="got 0 runs"):
        Band(100, 0, np.zeros(STRETCHES), np.zeros(STRETCHES))
    for wrong, says in (
        ({"step": [1]}, "takes one with step and loss"),
        ({"step": [1, 2], "loss": [1]}, "2 steps and 1 value of loss"),
        ({"step": [1], "loss": [math.nan]}, "no finite value of loss"),
    ):
        with pytest.raises(ValueError, match=says):
            maker.write_band("x", lambda seed, wrong=wrong: wrong, folder=tmp_path)
    assert not (tmp_path / "x.json").exists()
    with pytest.raises(SystemExit, match="'triton_attention': it takes one of unet"):
        maker.main("triton_attention")


def test_samples_stand_below_the_curve():
    log = run_of(np.random.default_rng(10))
    tall = figures.loss_curve(log | {"samples": {20: np.zeros((2, 3, 8, 8)), "truth": np.ones((2, 1, 8, 8))}})
    assert "what it makes, as pictures: step 20, truth" in tall.alt
    told = figures.loss_curve(log | {"samples": {20: ["a red circle"], "truth": ["a blue ring"]}}, [log])
    assert "step 20: a red circle; truth: a blue ring" in told.alt
    assert tall.data != figures.loss_curve(log).data


def test_long_texts_below_the_curve_are_whole():
    """Two descriptions a step do not fit into one line: each gets lines of its own, and the picture grows by them."""
    one, two = "a large yellow ring up on the left, " * 4, "a small white circle up is above a medium blue moon down"
    lines = curves._lines({"step 20": ["एक red circle"], "step 60": ["small " * 60, two], "truth": [one.strip(), two]})
    assert lines[0] == "step 20: ? red circle" and lines[2].endswith(" ...") and lines[3] == lines[6] == f"      {two}"
    assert " ".join(line.strip() for line in lines[4:6]) == f"truth: {one.strip()}" and len(lines) == 7
    assert max(map(len, lines)) <= curves.WIDER

    def tall(*samples):
        log = run_of(np.random.default_rng(10))
        return Image.open(io.BytesIO(figures.loss_curve(log | {"samples": dict(enumerate(samples))}).data)).height

    for longer, shorter in (([two, two], [two]), ([one, two], [two, two])):
        assert tall(longer) - tall(shorter) == pytest.approx(38, abs=1)


def test_a_run_is_judged_on_the_way_where_it_has_a_band_and_something_was_measured(monkeypatch, tmp_path):
    judged = []
    monkeypatch.setattr(watched, "BANDS", tmp_path)
    right = SimpleNamespace(right=True)
    monkeypatch.setattr(watched, "verdict", lambda run, name: judged.append(run["step"][-1]) or right)
    monkeypatch.setattr(watched.Probes, "__call__", lambda self, record, model, average: (
        {"held": 1.0} if record["step"] % 5 == 0 else {}))  # fmt: skip
    for there, steps in ((False, []), (True, [5])):
        if there:
            (tmp_path / "mine.json").touch()
        run = watched.Watched("mine", None, {"x": torch.zeros(4)}, steps=10, groups=2)
        for step in (4, 5, 10):  # at the last step the curve itself says it
            run({"step": step, "loss": 1.0}, None, None)
        assert judged == steps


@pytest.mark.parametrize("lost", [math.nan, math.inf])
def test_a_loss_that_is_no_number_any_more_is_wrong(band, lost):
    log = run_of(np.random.default_rng(8))
    log["loss"] = np.where(log["step"] > 100, lost, log["loss"])
    said = verdict(log, band)
    assert said.right is False and "after it the loss is no finite number, to step 200" in str(said)
    assert verdict(log, band, after=0.5).right  # up to there it was right
    one = run_of(np.random.default_rng(8))
    one["loss"] = np.where(one["step"] == 100, math.nan, one["loss"])
    assert verdict(one, band).right  # a single hole is none
