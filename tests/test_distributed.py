"""One training by several processes, and a batch in parts: the same training as one process's."""

import json
import os
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from team_runs import CONFIG, Stack, at, batch_fn, run, stack
from torch import nn

from soralab import experiments
from soralab.command import main
from soralab.files.checkpoints import load_checkpoint
from soralab.recipes import unet
from soralab.training import distributed
from soralab.training.distributed import Team, cut, sliced, team
from soralab.training.loop import train
from soralab.training.state import read_log

HERE = Path(__file__).resolve().parent
TIMES = {"seconds", "samples_s", "wait_share"}
PATIENCE = 900  # seconds for processes that take ten on a quiet machine


def torchrun(*arguments, cwd=None, **environment) -> subprocess.CompletedProcess:
    """Two processes by PyTorch's own starter, which takes a free port."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    env = {**os.environ, "PYTHONPATH": str(HERE.parent), "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1", **environment}
    if os.name == "nt":
        env["USE_LIBUV"] = "0"  # PyTorch's wheels for Windows have none
    command += map(str, arguments)
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=PATIENCE)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    for name in ("RANK", "WORLD_SIZE", "SORALAB_DEVICE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run by one process, its batches in two parts."""
    os.environ["TQDM_DISABLE"] = "1"
    folder = tmp_path_factory.mktemp("one") / "whole"
    with team(accumulate=2):
        run(folder)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory, whole):
    """The folder of what two processes did, and the step in which one of them was killed."""
    folder, step = tmp_path_factory.mktemp("two"), random.SystemRandom().randint(2, CONFIG.steps)
    with team(accumulate=2), pytest.raises(ZeroDivisionError):
        run(folder / "gone_on", at(15, 0, lambda _: 1 / 0))
    run(folder / "lengthened", config=replace(CONFIG, steps=12))
    with team(accumulate=2):
        stack(folder / "begun", steps=6)
    ended = torchrun(HERE / "team_runs.py", folder, step)
    assert (folder / "1.json").exists(), ended.stderr
    assert ended.returncode == 1 and re.search(r"SIGKILL|exitcode *: 15 ", ended.stderr)  # Windows has no signals
    return folder, step, ended.stderr


def same_state(a, b):
    (a, card_a), (b, card_b) = load_checkpoint(a / "state"), load_checkpoint(b / "state")
    assert a.keys() == b.keys() and [k for k in a if not torch.equal(a[k], b[k])] == []
    assert card_a["step"] == card_b["step"] and card_a["parts"] == card_b["parts"]
    return True


def same_log(a, b):
    a, b = ([{k: v for k, v in record.items() if k not in TIMES} for record in read_log(p / "log.jsonl")]
            for p in (a, b))  # fmt: skip
    assert a == b and len(a) > 2
    return True


# ---------------------------------------------------------------- two processes


def test_two_processes_train_as_one_bit_for_bit(whole, two):
    """Weights, average, moments and log: two addends have one sum, in whatever order."""
    assert same_state(two[0] / "whole", whole) and same_log(two[0] / "whole", whole)


def test_two_processes_share_the_matrices_that_muon_makes_orthogonal(two):
    """Each does half of them, of an odd number one less or more; one alone is not worth the way to the other."""
    for rank in (0, 1):
        seen = json.loads((two[0] / f"{rank}.json").read_text())
        assert seen["took"] == [2 - rank] * CONFIG.steps  # of the three of a training
        assert [row["took"] for row in seen["divided"][::2]] == ([1, 1, 2, 2, 3], [1, 1, 1, 2, 2])[rank]
        assert all(row["same"] for row in seen["divided"]), seen


def test_the_first_process_goes_ahead(two):
    seen = [json.loads((two[0] / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [each["prepared"] for each in seen] == [False, True]


def test_a_stop_that_one_process_hears_stops_both_at_one_step(whole, two, tmp_path):
    """It is heard in step 5, and both have done it."""
    assert [json.loads((two[0] / f"{rank}.json").read_text())["stopped"] for rank in (0, 1)] == ["143", "143"]
    assert load_checkpoint(two[0] / "stopped" / "state")[1]["step"] == 5
    assert two[2].count(f"stopped at step 5 of 24, state saved in {two[0] / 'stopped'}") == 1
    run(two[0] / "stopped")  # goes on with one process
    assert same_state(two[0] / "stopped", whole) and same_log(two[0] / "stopped", whole)


def test_a_loss_that_is_nan_in_one_process_stops_both(two):
    for rank in (0, 1):
        assert "the loss became nan at step 5" in json.loads((two[0] / f"{rank}.json").read_text())["not_finite"]
    assert not list((two[0] / "not_finite").glob("state*"))


@pytest.mark.parametrize("name, step", [("steep", 5), ("steep_in_shards", 1)])
def test_a_gradient_that_is_nan_in_one_process_stops_both(two, name, step):
    for rank in (0, 1):
        said = json.loads((two[0] / f"{rank}.json").read_text())[name]
        assert f"the norm of the gradient became nan at step {step}" in said
    assert not list((two[0] / name).glob("state*"))


def test_a_folder_where_another_training_runs_is_refused_to_both(two):
    """The first process meets the lock, and the others do not wait for it for ever. What is there stays, see above."""
    first, second = (json.loads((two[0] / f"{rank}.json").read_text())["refused"] for rank in (0, 1))
    assert f"another training runs in {two[0] / 'whole'} (process " in first
    assert second == "the first process has stopped, so this one does"


def test_after_a_kill_at_any_step_one_process_goes_on_bit_for_bit(whole, two):
    """kill -9 of one of two: what is lost is at most the steps since the last save."""
    folder, step, _ = two
    kept = (step - 1) // CONFIG.save_every * CONFIG.save_every
    if kept:
        assert load_checkpoint(folder / "killed" / "state")[1]["step"] == kept, step
    run(folder / "killed")
    if kept:
        assert same_state(folder / "killed", whole) and same_log(folder / "killed", whole), step
    else:  # nothing was saved: a new run of one process, in one part
        assert load_checkpoint(folder / "killed" / "state")[1]["parts"] == 1


def test_two_processes_go_on_where_one_was(whole, two):
    """In as many parts as the one took: the same run."""
    assert same_state(two[0] / "gone_on", whole) and same_log(two[0] / "gone_on", whole)


def test_two_processes_go_on_with_a_run_of_one_part_and_say_so(two):
    card = load_checkpoint(two[0] / "lengthened" / "state")[1]
    assert card["parts"] == 2 and card["step"] == 24
    said = "were taken in parts of 1/1 until step 10, from there on in parts of 1/2: the same examples with other noise"
    assert two[2].count(said) == 1


def test_buffers_move_by_the_mean_over_processes(two):
    """Halves of one size: their mean is the whole batch's; the variance is the mean of the halves' own."""
    states = [load_file(two[0] / f"normed_{rank}.safetensors") for rank in (0, 1)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    x = batch_fn(0)["x"]
    torch.testing.assert_close(states[0]["0.running_mean"], 0.1 * x.mean(0), rtol=1e-5, atol=1e-7)
    variance = torch.stack([half.var(0) for half in x.chunk(2)]).mean(0)
    torch.testing.assert_close(states[0]["0.running_var"], 0.9 + 0.1 * variance, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(0.1 * x[:6].mean(0), 0.1 * x.mean(0), rtol=1e-2)  # process 0's alone would not do


def test_a_chapter_trains_by_the_command_that_the_readme_tells(tmp_path):
    """Two processes, each its batch in two parts; the first alone measures, saves and says so."""
    command = ("-m", "soralab.training", "vqvae_films", "--steps", "2", "--accumulate", "2")
    ended = torchrun(*command, cwd=tmp_path, SORALAB_PROFILE="smoke")
    assert ended.returncode == 0, ended.stderr
    said = [line for line in ended.stdout.splitlines() if "peer ranks" not in line]  # which PyTorch 2.9 tells
    assert said == [f"saved {Path('runs') / 'vqvae_films' / 'vqvae_films.safetensors'}"]
    assert load_checkpoint(tmp_path / "runs" / "vqvae_films" / "state")[1]["parts"] == 4
    card = load_checkpoint(tmp_path / "runs" / "vqvae_films" / "vqvae_films")[1]
    assert card["steps"] == 2 and card["metrics"]
    assert not list((tmp_path / "runs").rglob("*.lock"))


def test_what_is_wrong_is_told_above_torchruns_own_lines(tmp_path):
    ended = torchrun("-m", "soralab.training", "sorra", cwd=tmp_path, SORALAB_PROFILE="smoke")
    assert ended.returncode and "ChildFailedError" in ended.stderr
    assert "soralab: NAME is 'sorra'; it takes one of " in ended.stderr.split("ChildFailedError")[0]
    assert not list(tmp_path.iterdir())


def test_the_command_takes_a_batch_in_parts_without_torchrun_too(tmp_path, monkeypatch):
    seen = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(unet, "train", lambda name, steps: seen.append(distributed.TEAM.get().parts()))
    monkeypatch.setattr(experiments, "finish", lambda name, trained, folder: folder)
    assert main(["train", "unet", "--accumulate", "3"]) == 0 and seen == [3]


def test_a_real_set_is_for_one_process_in_one_part(monkeypatch, capsys):
    monkeypatch.setenv("SORALAB_DATASET", "mnist")
    for more in (["--accumulate", "2"], ["--shard"], ["--stream", "films"]):
        assert main(["train", "vit", *more]) == 2
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", "vit"]) == 2
    said = "soralab: SORALAB_DATASET is mnist, which one process learns from in one part: leave out torchrun, "
    assert [line.startswith(said) for line in capsys.readouterr().err.splitlines()] == 4 * [True]


# ---------------------------------------------------------------- shards


@pytest.mark.parametrize("name, parts", [("sharded", 2), ("sharded_in_four_parts", 4), ("in_four_parts", 4)])
def test_shards_and_parts_train_as_one_process_does(two, tmp_path, name, parts):
    """To rounding: a gradient, or its norm, is summed in another order. 1e-5 of weights, moments and average."""
    with team(accumulate=parts):
        stack(tmp_path, steps=12)
    (found, card), (right, other) = (load_checkpoint(p / "state") for p in (two[0] / name, tmp_path))
    assert card["parts"] == other["parts"] == parts
    assert found.keys() == right.keys() and card["step"] == other["step"] == 12
    assert right.pop("model/mean").ne(0).all()  # a buffer: one process moves it twice a step, two by the mean
    for key, value in right.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-5, msg=lambda m, key=key: f"{key}: {m}")
    losses = [[record["loss"] for record in read_log(p / "log.jsonl")] for p in (two[0] / name, tmp_path)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_models_that_begin_unlike_begin_as_the_first_processs(two, tmp_path):
    """In shards too, where DDP does not see to it: else half of the rows are another model's."""
    with team(accumulate=2):
        stack(tmp_path, steps=2)
    found, right = (load_checkpoint(p / "state")[0] for p in (two[0] / "unlike", tmp_path))
    for name, value in right.items():
        if name != "model/mean":
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_each_process_keeps_its_rows_alone_and_ends_with_a_whole_model(two):
    seen = [json.loads((two[0] / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [each["rows"]["blocks.0.weight"] for each in seen] == [[4, 8], [4, 8]]
    assert [each["rows"]["blocks.1.weight"] for each in seen] == [[4, 8], [3, 8]]  # seven rows
    assert [each["rows"]["head.weight"] for each in seen] == [[1, 7], [0, 7]] and seen[0]["rows"]["gain"] == []
    assert seen[0]["kinds"] == seen[1]["kinds"] == [type(m).__name__ for m in Stack().modules()]
    saved = load_checkpoint(two[0] / "sharded" / "state")[0]
    for rank in (0, 1):
        for name, value in load_file(two[0] / f"sharded_{rank}.safetensors").items():
            assert torch.equal(value, saved[f"model/{name}"]), name
        average = load_file(two[0] / f"average_{rank}.safetensors")  # what a recipe ships
        assert len(average) == 9 and all(torch.equal(value, saved[f"ema/{name}"]) for name, value in average.items())


def test_who_looks_at_a_model_in_shards_sees_it_whole(two):
    """The last line of the log is of the last step, and so is what is saved."""
    looked, saved = load_file(two[0] / "looked.safetensors"), load_checkpoint(two[0] / "sharded" / "state")[0]
    assert len(looked) > 8 and all(torch.equal(value, saved[f"model/{name}"]) for name, value in looked.items())


def test_one_process_goes_on_with_what_shards_began(two, tmp_path):
    stack(two[0] / "sharded")
    with team(accumulate=2):
        stack(tmp_path)
    found, right = (load_checkpoint(p / "state")[0] for p in (two[0] / "sharded", tmp_path))
    for name, value in right.items():
        if name != "model/mean":
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_shards_go_on_with_what_one_process_began(two, tmp_path):
    """Its moments and its average are cut as its weights are, and what is saved of a moment is that moment in all rows,
    though each process has read them in another order. To rounding, as above."""
    with team(accumulate=2):
        stack(tmp_path, steps=12)
    (found, card), (right, _) = (load_checkpoint(p / "state") for p in (two[0] / "begun", tmp_path))
    assert card["step"] == 12 and found.keys() == right.keys()
    for name, value in right.items():
        if name != "model/mean":
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_one_process_has_no_shards(tmp_path):
    with pytest.raises(ValueError, match="shard takes several processes: torchrun"), team(shard=True):
        pass


# ---------------------------------------------------------------- tokens of one film


def test_two_processes_share_the_tokens_of_a_film(two):
    """Output and every gradient are one process's, to 1e-9 in float64; each process had half of the tokens."""
    for rank in (0, 1):
        film = json.loads((two[0] / f"{rank}.json").read_text())["film"]
        assert film["apart"] < 1e-9 and film["tensors"] > 40
        assert film["tokens"] == [80, 40]
        uneven = json.loads((two[0] / f"{rank}.json").read_text())["uneven"]
        assert uneven == "tokens are 15, which 2 processes cannot share evenly"


# ---------------------------------------------------------------- parts of a batch


def plain_loss(model, batch, generator):
    """No noise: the mean over a batch is that of its parts by their shares."""
    return (model(batch["x"]) - batch["y"]).square().mean(), {"sum": float(batch["y"].sum())}


def of_parts(folder, parts, loss=plain_loss):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    with team(accumulate=parts):
        train(model, loss, batch_fn, replace(CONFIG, log_every=1), folder)
    return torch.cat([p.detach().flatten() for p in model.parameters()]), read_log(folder / "log.jsonl")


def test_a_batch_in_parts_trains_as_the_whole_batch(tmp_path, monkeypatch):
    """Parts of 2 and 3 examples: to rounding, 1e-4 of a weight and 1e-5 of a loss; parts that count alike are far."""
    (right, log), (found, other) = (of_parts(tmp_path / str(parts), parts) for parts in (1, 5))
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)
    for a, b in zip(log, other, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5) and b["grad_norm"] == pytest.approx(a["grad_norm"], 1e-4)
    share = Team.share
    monkeypatch.setattr(Team, "share", lambda *given: (s := share(*given))._replace(
        parts=[part._replace(weight=1 / 5) for part in s.parts]))  # fmt: skip
    assert (of_parts(tmp_path / "alike", 5)[0] - right).abs().max() > 1e-3


def test_each_part_has_noise_of_its_own(tmp_path):
    drawn = []

    def loss(model, batch, generator):
        drawn.append((torch.rand((), generator=generator).item(), torch.rand(()).item()))
        return plain_loss(model, batch, generator)

    of_parts(tmp_path, 3, loss)
    assert len(drawn) == 72 == len(set(drawn))


def test_a_run_goes_on_in_the_parts_it_had(whole, tmp_path, capsys):
    with team(accumulate=2), pytest.raises(ZeroDivisionError):
        run(tmp_path, at(9, 0, lambda _: 1 / 0))
    run(tmp_path)
    assert same_state(tmp_path, whole) and same_log(tmp_path, whole) and capsys.readouterr().err == ""


def test_other_parts_are_another_noise_and_that_is_said(whole, tmp_path, capsys):
    with team(accumulate=2), pytest.raises(ZeroDivisionError):
        run(tmp_path, at(9, 0, lambda _: 1 / 0))
    with team(accumulate=3):
        run(tmp_path)
    assert "in parts of 1/2 until step 6, from there on in parts of 1/3" in capsys.readouterr().err
    assert load_checkpoint(tmp_path / "state")[1]["parts"] == 3
    assert not torch.equal(load_checkpoint(tmp_path / "state")[0]["model/1.weight"],
                           load_checkpoint(whole / "state")[0]["model/1.weight"])  # fmt: skip


@pytest.mark.parametrize("world, accumulate, saved, parts", [
    (1, None, 1, 1), (1, None, 6, 6), (2, None, 1, 2), (2, None, 4, 4), (3, None, 4, 6), (4, None, 6, 8), (2, 3, 4, 6),
    (1, 1, 4, 1),
])  # fmt: skip
def test_how_many_parts_there_are(world, accumulate, saved, parts):
    assert Team(0, world, accumulate).parts(saved) == parts


def test_the_processes_share_all_parts_and_each_once():
    batch = batch_fn(0)
    shares = [Team(rank, 2).share(batch, 4) for rank in (0, 1)]
    assert [[part.number for part in share.parts] for share in shares] == [[0, 1], [2, 3]]
    assert all(share.size == 12 and [part.weight for part in share.parts] == [0.25, 0.25] for share in shares)
    assert torch.equal(torch.cat([part.batch["x"] for share in shares for part in share.parts]), batch["x"])
    alone = Team().share(batch, 1)
    assert alone.parts[0].batch is batch and alone.parts[0].weight == 1.0


def test_parts_of_a_batch():
    batch = {"x": torch.arange(10), "y": [torch.arange(20).view(10, 2), "words"], "t": torch.tensor(3.0), "flag": True}
    parts = cut(batch, 4)
    assert [part["x"].tolist() for part in parts] == [[0, 1], [2, 3, 4], [5, 6], [7, 8, 9]]
    assert torch.equal(torch.cat([part["y"][0] for part in parts]), batch["y"][0])
    assert all(part["y"][1] == "words" and part["t"] == 3 and part["flag"] for part in parts)
    with pytest.raises(ValueError, match="batch has 10 examples, too few for 11 parts"):
        cut(batch, 11)
    with pytest.raises(ValueError, match="batch has tensors of 2, 3 examples, so it cannot be cut into parts"):
        cut({"x": torch.zeros(2), "y": torch.zeros(3)}, 2)
    assert [part["y"].tolist() for part in sliced({"x": torch.zeros(2), "y": torch.arange(4)}, 2)] == [[0, 1], [2, 3]]


def test_more_processes_than_gpus_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="nproc-per-node is 4, but this machine has 2 GPUs"), team():
        pass
    assert distributed.TEAM.get() is distributed.ALONE


@pytest.mark.parametrize("chosen, taken, device", [("", [1], "cuda:1"), ("cpu", [], "cpu")])
def test_a_process_takes_the_gpu_of_its_number_unless_the_reader_has_chosen(monkeypatch, chosen, taken, device):
    found = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", found.append)
    for name, value in {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "SORALAB_DEVICE": chosen}.items():
        monkeypatch.setenv(name, value)
    distributed._take_gpu()
    assert found == taken and os.environ["SORALAB_DEVICE"] == device
