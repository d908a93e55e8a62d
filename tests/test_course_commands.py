"""course.py for real, in small: its text, the commands that it starts, and what calls it."""
import ast
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

import conftest
import course

SOURCE = Path(course.__file__)


def test_an_old_python_can_read_the_file():
    """A syntax error would hide the message above, so nothing newer than Python 3.4 stands in the file."""
    text = SOURCE.read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 4))
    newer = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.AsyncFunctionDef)
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, newer)] == []
    imported = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert imported <= set(sys.stdlib_module_names)


def test_run_returns_the_exit_code():
    assert course.run([sys.executable, "-c", "raise SystemExit(7)"]) == 7


def test_run_says_that_it_is_still_at_work(monkeypatch, capfd):
    monkeypatch.setattr(course, "NOTE_EVERY_S", 0.05)
    course.run([sys.executable, "-c", "import time; time.sleep(0.5)"], note="pip is still at work")
    assert "pip is still at work" in capfd.readouterr().out


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
@pytest.mark.parametrize("code, raised", [(0, False), (1, True)])
def test_ctrl_c_is_the_commands_to_answer(monkeypatch, tmp_path, code, raised):
    """run() waits on; it raises only when the command then failed."""
    ready = tmp_path / "ready"
    child = ("import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch()\n"
             f"while pathlib.Path(sys.argv[1]).exists(): time.sleep(0.02)\nraise SystemExit({code})")

    def interrupt():
        while not ready.exists():
            threading.Event().wait(0.02)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        threading.Event().wait(0.1)
        ready.unlink()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        answer = course.run([sys.executable, "-c", child, str(ready)])
    except KeyboardInterrupt:
        answer = "raised"
    thread.join()
    assert answer == ("raised" if raised else code)


CI = SOURCE.parent / ".ci" / "run"
ALL_TESTS = ["course.py test", "course.py test --thorough", "course.py test --browser"]


def test_ci_calls_exactly_the_readmes_commands():
    script = CI.read_text(encoding="utf-8")
    commands = [line.strip() for line in script.splitlines() if "course.py" in line]
    rest = '</dev/null 2>&1 | tee -a "$said" || status=$?'
    assert commands == [f"python3 {command} {rest}" for command in ALL_TESTS]
    assert "set -euo pipefail" in script and script.endswith('\nexit "$status"\n')


@pytest.mark.skipif(os.name == "nt", reason="a script for bash")
@pytest.mark.parametrize("there, apt, tests, thorough, browser, code, before", [
    ("chromium", 0, 0, 0, 0, 0, []),
    ("", 0, 0, 0, 0, 0, ["apt-get update -qq",
                         "apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core"]),
    ("", 100, 0, 0, 0, 0, ["apt-get update -qq"]),
    ("google-chrome", 0, 1, 0, 0, 1, []), ("google-chrome", 0, 0, 4, 0, 4, []), ("google-chrome", 0, 0, 0, 3, 3, []),
])  # fmt: skip
def test_ci_fails_by_tests_and_not_for_want_of_a_browser(tmp_path, there, apt, tests, thorough, browser, code, before):
    """The script among programs that only note down how they were called."""
    notes = tmp_path / "notes"
    python = f'$(case "$3" in --thorough) echo {thorough};; --browser) echo {browser};; *) echo {tests};; esac)'
    programs = {"apt-get": apt, "python3": python, there or "other": 0}
    for name, exit_code in programs.items():
        said = '"$*"' if name == "python3" else f'"{name} $*"'
        (tmp_path / name).write_text(f"#!/bin/sh\necho {said} >> '{notes}'\nexit {exit_code}\n")
    (tmp_path / "timeout").write_text('#!/bin/sh\nshift\nexec "$@"\n')
    (tmp_path / "dirname").write_text(f"#!/bin/sh\necho '{CI.parent}'\n")
    for program in tmp_path.iterdir():
        program.chmod(0o755)
    done = run_ci(tmp_path)
    assert done.returncode == code and notes.read_text().splitlines() == before + ALL_TESTS, done.stderr
    assert ("could not be installed" in done.stdout) is bool(apt)


def run_ci(folder):
    """The script among the programs of a folder, and those that every system has."""
    for program in ("mktemp", "tee", "sed", "tail", "grep", "rm"):
        (folder / program).symlink_to(shutil.which(program))
    return subprocess.run([shutil.which("bash"), str(CI)], env={"PATH": str(folder)}, capture_output=True, text=True,
                          timeout=60)  # fmt: skip


FAILED = """============ FAILURES ============
____________ test_one ____________
E   assert 1 == 2
===== short test summary info ====
FAILED tests/test_a.py::test_one
=== 1 failed, 7 passed in 6.14s (0:00:06) ===
"""


@pytest.mark.skipif(os.name == "nt", reason="a script for bash")
@pytest.mark.parametrize("tests, thorough, end", [
    (FAILED, "=== 7 passed in 1.00s ===\n", FAILED),
    ("=== 7 passed in 1.00s ===\n", FAILED, FAILED),
    ("=== 7 passed in 1.00s ===\ncourse: ruff found places\n", "", "course: ruff found places\n"),
    (FAILED + "course: ruff found places\n", FAILED, FAILED + FAILED + "course: ruff found places\n"),
    (f"== FAILURES ==\nlong {9000 * 'x'}\n== 1 failed in 2.00s ==\n", "", "xxx\n== 1 failed in 2.00s ==\n"),
    ("=== 7 passed in 1.00s ===\n", "", "the last\n"),
])  # fmt: skip
def test_ci_says_at_its_end_what_failed(tmp_path, tests, thorough, end):
    for name, text in (("tests", tests), ("--thorough", thorough), ("--browser", "the last\n")):
        (tmp_path / f"said{name}").write_text(text)
    programs = {"python3": f"exec cat '{tmp_path}/said'\"${{3:-tests}}\"", "chromium": "",
                "dirname": f"echo '{CI.parent}'"}  # fmt: skip
    for name, does in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "cat").symlink_to(shutil.which("cat"))
    done = run_ci(tmp_path)
    assert done.stdout.startswith(tests + thorough + "the last\n") and done.stdout.endswith(end), done.stderr
    assert len(done.stdout) < len(tests + thorough) + 9000


@pytest.mark.parametrize("asked, marker, skipped", [
    ("", "thorough", True), ("not notebook", "thorough", True), ("browser", "thorough", True),
    ("thorough", "thorough", False), ("", "browser", True), ("browser", "browser", False), ("", "notebook", False),
])  # fmt: skip
def test_what_is_on_demand_is_skipped_unless_asked_for_and_says_how(asked, marker, skipped):
    added = []
    item = SimpleNamespace(config=SimpleNamespace(option=SimpleNamespace(markexpr=asked)), path=Path("test_x.py"),
                           get_closest_marker=lambda name: name == marker, add_marker=added.append)  # fmt: skip
    conftest.pytest_collection_modifyitems([item])
    assert [mark.name for mark in added] == ["skip"] * skipped
    assert all(f"python3 course.py test --{marker}" in mark.kwargs["reason"] for mark in added)


def test_help_runs_without_the_environment(tmp_path):
    """The real file, started by this Python with an empty search path: nothing but the standard library."""
    command = [sys.executable, "-I", "-S", str(SOURCE), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and "course.py test" in done.stdout
