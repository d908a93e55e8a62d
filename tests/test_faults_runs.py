"""Runs that are stopped at the wrong moment, or share what one of them should have alone: nothing is lost."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from soralab.files import atomic, checkpoints
from soralab.files.atomic import atomic_write, kept
from soralab.files.checkpoints import load_checkpoint, save_checkpoint
from soralab.files.lock import alone
from soralab.training import state
from soralab.training.interrupt import goes_on
from soralab.training.loop import TrainConfig, train
from soralab.training.state import append_log, read_log, trim_log
from soralab.workbook import progress

ROOT = Path(__file__).resolve().parents[1]
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


# ---------------------------------------------------------------- killed at any moment of a write


@pytest.fixture
def no_sync(monkeypatch):
    """What a killed process has written stays in the system's memory: the disk, which is slow, need not be waited for.
    (That it is, for the sake of power cuts, is held by tests/test_files.py.)"""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def killed_at(line, work, files):
    """Run `work` in a process of its own that dies, with no clean-up, before the given line of these files; returns
    whether it died, or had fewer lines."""
    left = [line]

    def watch(frame, event, _):
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
        return watch

    child = os.fork()
    if child == 0:
        try:
            sys.settrace(watch)
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


def killed_everywhere(folder, before, work, look, modules):
    """`before` prepares a folder, `work` is killed before each of its lines in turn, `look` says what is there after:
    returns the looks, one a line, in order."""
    files, looks = {module.__file__ for module in modules}, []
    for line in range(1, 1000):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        before()
        died = killed_at(line, work, files)
        looks.append(look())
        if not died:
            return looks
    raise AssertionError("it never ends")


def old_then_new(looks, old, new):
    """Whether every look saw the old or the new, whole, and never the old again after the new."""
    turned = looks.index(new)
    return 0 < turned < len(looks) and looks == [old] * turned + [new] * (len(looks) - turned)


@needs_fork
def test_a_checkpoint_killed_at_any_line_of_its_saving_is_the_old_or_the_new(tmp_path, no_sync):
    folder = tmp_path / "runs"
    path = folder / "toy"

    def save(number):
        save_checkpoint(path, {"w": torch.full((3,), float(number))}, {"step": number})

    def look():
        tensors, card = load_checkpoint(path)
        assert tensors["w"].eq(card["step"]).all()  # a pair that belongs together
        seen = card["step"]
        save(3)  # and the next save finds nothing in its way
        assert load_checkpoint(path)[1]["step"] == 3
        assert sorted(os.listdir(folder))[-2:] == ["toy.json", "toy.safetensors"]
        return seen

    looks = killed_everywhere(folder, lambda: save(1), lambda: save(2), look, [checkpoints, atomic])
    assert old_then_new(looks, 1, 2) and len(looks) > 40


@needs_fork
@pytest.mark.parametrize("what", ["record", "measure", "log"])
def test_what_is_written_beside_a_checkpoint_is_whole_after_any_kill(tmp_path, monkeypatch, no_sync, what):
    folder = tmp_path / "runs"
    path = folder / "file.json"
    monkeypatch.setenv("SORALAB_PROGRESS", str(path))
    if what == "record":  # an answer is noted
        before, work = (lambda: progress.note_try("unet.pack", False)), (lambda: progress.note_try("unet.pack", True))
        look, modules, old, new = (lambda: progress.read(path).solved("unet.pack")), [progress, atomic], False, True
    elif what == "measure":
        before, work = (lambda: None), (lambda: kept(path, lambda: 7))
        look, modules, old, new = (lambda: kept(path, lambda: 8)), [atomic], 8, 7
    else:  # a run goes on from step 1, and what was logged after it is dropped
        before = lambda: [append_log(path, {"step": step}) for step in (1, 2, 3)]  # noqa: E731
        work = lambda: trim_log(path, 1)  # noqa: E731
        look, modules, old, new = (lambda: len(read_log(path))), [state, atomic], 3, 1
    looks = killed_everywhere(folder, before, work, look, modules)
    assert old_then_new(looks, old, new) and len(looks) > 15


@needs_fork
def test_the_search_finds_a_write_that_is_not_whole(tmp_path):
    """The same search over a file that is opened and written in place."""
    folder = tmp_path / "runs"
    path = folder / "file.json"

    def in_place():
        with open(path, "w") as file:
            file.write("new")

    here = sys.modules[__name__]
    looks = killed_everywhere(folder, lambda: path.write_text("old"), in_place, lambda: path.read_text(), [here])
    assert "" in looks and not old_then_new(looks, "old", "new")


# ---------------------------------------------------------------- two in one folder


CONFIG = TrainConfig(steps=12, lr=0.05, warmup=2, log_every=3, save_every=5, precision="float32", ema=0.9)


def build():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(4, 1)


def batch(step):
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
    return x, x.sum(1, keepdim=True)


def loss_fn(model, batch, generator):
    return (model(batch[0]) - batch[1]).square().mean()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"}


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("steps", [12, 30])
def test_a_second_training_leaves_what_the_first_one_wrote(tmp_path, monkeypatch, resume, steps):
    """It once began by taking away the first one's state, or the end of its log, and only then looked for it."""
    monkeypatch.setenv("TQDM_DISABLE", "1")
    train(build(), loss_fn, batch, CONFIG, tmp_path)
    append_log(tmp_path / "log.jsonl", {"step": 13})  # the first one has gone on since it saved
    there = contents(tmp_path)
    with alone(tmp_path, "training"):
        with pytest.raises(OSError, match=f"another training runs in .* [(]process {os.getpid()}[)]: wait"):
            train(build(), loss_fn, batch, TrainConfig(**CONFIG.card() | {"steps": steps}), tmp_path, resume=resume)
        assert contents(tmp_path) == there
    assert train(build(), loss_fn, batch, CONFIG, tmp_path, resume=resume).steps == 12


def test_a_folder_for_the_lock_that_is_full_is_one_line(tmp_path, monkeypatch):
    import errno

    def full(path, *_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(OSError, match="^the disk is full, training.lock was not written") as error:
        with alone(tmp_path, "training"):
            pass
    monkeypatch.undo()
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- a notebook, interrupted and run again


CELLS = (
    f"""
import sys, tempfile, time
sys.path[:0] = {[str(ROOT), str(ROOT / "tests")]!r}
import torch
from test_faults_runs import CONFIG, batch, build, loss_fn
from soralab.training.loop import train
from soralab.training.state import read_log
pause, before = 0.2, torch.get_rng_state()

def slow(step):
    time.sleep(pause)
    return batch(step)
""",
    """
with tempfile.TemporaryDirectory() as folder:
    log = read_log(train(build(), loss_fn, slow, CONFIG, folder, on_log=lambda record: print("logged")).log)
print("losses", [record["loss"] for record in log], torch.equal(before, torch.get_rng_state()))
""",
    "import os; pause = 0; print(os.path.exists(folder), torch.equal(before, torch.get_rng_state()))",
)


def run_cell(client, code, manager=None):
    """Run a cell in a kernel and return (status, printed, errors); with a manager it is interrupted after one line."""
    asked, printed = client.execute(code), {"stdout": "", "stderr": ""}
    while True:
        message = client.get_iopub_msg(timeout=60)
        if message["parent_header"].get("msg_id") != asked:
            continue
        if message["msg_type"] == "stream":
            printed[message["content"]["name"]] += message["content"]["text"]
            if manager and "logged" in printed["stdout"]:
                manager.interrupt_kernel()
                manager = None
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            break
    while (reply := client.get_shell_msg(timeout=60))["parent_header"].get("msg_id") != asked:
        pass  # an answer to what the client asked as it began
    return reply["content"], printed["stdout"], printed["stderr"]


def test_a_cell_that_is_interrupted_and_run_again_is_as_if_it_had_not_been(tmp_path, monkeypatch):
    """As every chapter trains: in a temporary folder. Nothing of the first try is left, in the kernel or on disk."""
    from jupyter_client.manager import start_new_kernel

    monkeypatch.setenv("TQDM_DISABLE", "1")
    manager, client = start_new_kernel(cwd=str(tmp_path))
    try:
        assert run_cell(client, CELLS[0])[0]["status"] == "ok"
        reply, out, err = run_cell(client, CELLS[1], manager)
        assert reply["status"] == "error" and reply["ename"] == "KeyboardInterrupt" and "losses" not in out
        assert err.startswith("stopped at step ") and err.endswith("temporary one: run the same again to begin anew\n")
        assert run_cell(client, CELLS[2])[1] == "False True\n"
        reply, again, _ = run_cell(client, CELLS[1])
        assert reply["status"] == "ok"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    undisturbed = [record["loss"] for record in read_log(train(build(), loss_fn, batch, CONFIG, tmp_path / "own").log)]
    assert again.splitlines()[-1] == f"losses {undisturbed} True"
    assert os.listdir(tmp_path) == ["own"]


def test_only_a_temporary_folder_is_called_one():
    assert "begin anew" in goes_on(Path(tempfile.gettempdir()) / "tmpab_12xyz" / "deeper")
    for folder in ("runs/vit", Path(tempfile.gettempdir()) / "tmp.AB12", Path(tempfile.gettempdir()) / "pytest-of-me"):
        assert goes_on(Path(folder)) == f"state saved in {folder}: run the same again to go on"


# ---------------------------------------------------------------- little memory


needs_limit = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
LITTLE = """
import resource, sys
import soralab.sora, soralab.world.referee
limit = {bytes}
mapped, held = (int(pages) * resource.getpagesize() for pages in open("/proc/self/statm").read().split()[:2])
limit = mapped - limit if limit < 0 else mapped - held + limit  # what is mapped and never read is no memory
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from soralab.command import main
sys.exit(main(sys.argv[1:]))
"""


def with_memory(folder, count, *arguments):
    """The command with so many bytes of memory; with a negative number, so many more than it takes to begin. (Linux
    limits what is mapped; PyTorch's libraries map three to five GB, and hold half of one.)"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"}
    environment.pop("SORALAB_CHECKPOINTS", None)
    return subprocess.run([sys.executable, "-c", LITTLE.format(bytes=count), *arguments], cwd=folder, env=environment,
                          capture_output=True, text=True, timeout=240)  # fmt: skip


@needs_limit
def test_four_gigabytes_are_enough_to_film(tmp_path):
    ran = with_memory(tmp_path, 4 * 10**9, "film", "a small red circle slides right", "--steps", "4")
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "film.gif").exists()


@needs_limit
def test_want_of_memory_is_one_line_and_leaves_nothing(tmp_path):
    ran = with_memory(tmp_path, -60 * 10**6, "film", "a small red circle slides right", "--n", "64", "--steps", "2")
    assert ran.returncode == 2 and os.listdir(tmp_path) == []
    assert ran.stderr.startswith("soralab: there is not enough memory, after ") and ran.stderr.count("\n") == 1


def test_other_errors_of_pytorch_keep_their_traceback(monkeypatch):
    """A slip of ours must not pass for a small machine, or for a package that is missing."""
    from soralab.command import main, world

    for error in (RuntimeError("shapes cannot be multiplied"), ImportError("no such name", name="soralab.world")):

        def fail(_, error=error):
            raise error

        monkeypatch.setattr(world, "run", fail)
        with pytest.raises(type(error)):
            main(["world"])


def test_a_package_that_does_not_import_is_one_line(monkeypatch, capsys):
    from soralab.command import main, world

    def fail(_):
        raise ImportError("libtorch_cpu.so: cannot open shared object file\nand more")

    monkeypatch.setattr(world, "run", fail)
    assert main(["world"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "does not import (libtorch_cpu.so: cannot open shared object file)" in err
    assert "`soralab doctor` says which" in err


# ---------------------------------------------------------------- killed outright, by the system


def test_a_training_killed_at_random_moments_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    """kill -9 from outside, at moments that nobody chose, again and again, until a try is left to end."""
    monkeypatch.setenv("TQDM_DISABLE", "1")
    code = (
        "import sys, time\nsys.path[:0] = sys.argv[1:3]\nfrom test_faults_runs import CONFIG, batch, build, loss_fn\n"
        "from soralab.training.loop import train\n"
        "train(build(), loss_fn, lambda step: (time.sleep(0.02), batch(step))[1], CONFIG, sys.argv[3],\n"
        "      on_log=lambda record: print('logged', flush=True))"
    )
    for wait in (0.0, 0.013, 0.03):
        child = subprocess.Popen([sys.executable, "-c", code, str(ROOT), str(ROOT / "tests"), str(tmp_path / "killed")],
                                 stdout=subprocess.PIPE, text=True)  # fmt: skip
        child.stdout.readline()
        time.sleep(wait)
        child.kill()
        child.wait()
        child.stdout.close()
    ended = train(build(), loss_fn, batch, CONFIG, tmp_path / "killed")
    whole = train(build(), loss_fn, batch, CONFIG, tmp_path / "whole")
    a, b = load_checkpoint(ended.state)[0], load_checkpoint(whole.state)[0]
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    assert [r["loss"] for r in read_log(ended.log)] == [r["loss"] for r in read_log(whole.log)]


def test_an_older_file_stays_while_a_new_one_is_written(tmp_path):
    path = tmp_path / "film.gif"
    path.write_bytes(b"old")
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"half")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"half" and os.listdir(tmp_path) == ["film.gif"]
