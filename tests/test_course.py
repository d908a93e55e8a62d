"""course.py with everything that it would start replaced: nothing is made or downloaded here."""
import errno
import json
import os
import shlex
import sys
from pathlib import Path

import pytest

import course

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"


class Machine:
    """What course.py sees: a folder, and commands that are noted down instead of run."""

    def __init__(self, root, monkeypatch):
        self.root, self.commands, self.environments = root, [], []
        self.fails = {}                 # word of a command -> exit code
        self.answer = HERE + "\n"       # what .venv's Python says about itself; None: it does not start
        (root / "pyproject.toml").write_text("[project]\n")
        for name, value in {
            "ROOT": str(root), "ENV": str(root / ".venv"), "STAMP": str(root / ".venv" / "soralab.json"),
            "run": self.run, "WINDOWS": False, "free_gb": lambda folder: 100.0, "missing_modules": lambda: [],
        }.items():
            monkeypatch.setattr(course, name, value)
        monkeypatch.setattr(course.subprocess, "check_output", self.ask)
        monkeypatch.setattr(course.signal, "signal", lambda *_: None)

    def run(self, command, env=None, note=None):
        self.commands.append(list(command))
        self.environments.append(env)
        code = next((code for word, code in self.fails.items() if word in command), 0)
        if "venv" in command and code == 0:
            python = Path(course.python())
            python.parent.mkdir(parents=True, exist_ok=True)
            python.touch()
            for old in Path(course.ENV).glob("*.json"):
                old.unlink()            # --clear
        return code

    def ask(self, command, **_):
        if self.answer is None or not os.path.exists(command[0]):
            raise FileNotFoundError(command[0])
        return self.answer.encode()

    def steps(self):
        """The commands of the set-up so far, as words: "venv", "pip"; then forget them."""
        steps = [next(word for word in ("venv", "pip", "jupyterlab", "ruff", "pytest") if word in command)
                 for command in self.commands if "-q" not in command]
        self.commands.clear()
        return steps

    def stamp(self):
        return json.loads((self.root / ".venv" / "soralab.json").read_text())


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return Machine(tmp_path, monkeypatch)


def stopped(capsys, function, *arguments):
    """Call a function that must stop with exit code 2; return its message."""
    with pytest.raises(SystemExit) as end:
        function(*arguments)
    assert end.value.code == 2
    return capsys.readouterr().err


def test_a_command_runs_in_the_courses_folder_and_its_exit_code_is_returned(monkeypatch, tmp_path):
    monkeypatch.setattr(course, "ROOT", str(tmp_path))
    code = "import os, sys; open('here', 'w').write(os.environ['WORD']); sys.exit(7)"
    assert course.run([sys.executable, "-c", code], {**os.environ, "WORD": "said"}) == 7
    assert (tmp_path / "here").read_text() == "said"


def test_a_long_command_says_every_while_that_it_is_at_work(monkeypatch, capsys):
    monkeypatch.setattr(course, "NOTE_EVERY_S", 0.05)
    wait = [sys.executable, "-c", "import time; time.sleep(0.5)"]
    assert course.run(wait, note="pip is still at work") == 0
    assert capsys.readouterr().out.startswith("course: pip is still at work (0.0 minutes so far)\n")
    assert course.run(wait) == 0 and capsys.readouterr().out == ""


class Process:
    """A process whose waiting ends in turn as `ends` says: an exit code, or what is raised."""

    def __init__(self, *ends):
        self.ends, self.returncode, self.terminated = list(ends), None, False

    def wait(self, timeout=None):
        end = self.ends.pop(0)
        if not isinstance(end, int):
            raise end
        self.returncode = end

    def poll(self):
        return self.returncode

    def terminate(self):
        self.terminated = True


@pytest.mark.parametrize("ends, expected", [
    ((KeyboardInterrupt(), KeyboardInterrupt(), 0), 0), ((KeyboardInterrupt(), 2), KeyboardInterrupt),
    ((2,), 2), ((SystemExit(143),), SystemExit),
])
def test_ctrl_c_is_the_commands_to_answer_and_what_ends_this_ends_it(monkeypatch, ends, expected):
    process = Process(*ends)
    monkeypatch.setattr(course.subprocess, "Popen", lambda *_, **__: process)
    if isinstance(expected, int):
        assert course.run(["jupyter"]) == expected
    else:
        with pytest.raises(expected):
            course.run(["jupyter"])
    assert process.terminated == (expected is SystemExit)


def test_first_call_makes_and_installs_second_does_nothing(machine):
    assert course.main(["lab"]) == 0
    assert machine.steps() == ["venv", "pip", "jupyterlab"]
    assert course.main(["lab"]) == 0
    assert machine.steps() == ["jupyterlab"]


def test_the_tests_add_the_libraries_they_compare_with_once(machine, capsys):
    course.main(["lab"])
    machine.steps()
    assert course.main(["test"]) == 0
    assert machine.steps() == ["pip", "ruff", "pytest"]
    assert "adding the libraries" in capsys.readouterr().out
    assert course.main(["lab"]) == course.main(["test"]) == 0
    assert machine.steps() == ["jupyterlab", "ruff", "pytest"]
    (machine.root / "pyproject.toml").write_text("[project]\ndependencies = []\n")
    course.main(["lab"])
    assert ".[test,parity]" in machine.commands[-2]        # an update takes nothing away
    assert course.main(["test"]) == 0
    assert machine.steps() == ["pip", "jupyterlab", "ruff", "pytest"]


def test_the_browsers_tests_add_what_drives_it_once(machine, monkeypatch):
    monkeypatch.setattr(course, "chromium", lambda: "chromium")
    course.main(["test"])
    machine.steps()
    assert course.main(["test", "--browser", "-x"]) == 0
    assert machine.commands[-2][-1] == ".[test,parity,browser]"
    assert machine.commands[-1][1:] == ["-m", "pytest", "-m", "browser", "tests/test_browser.py", "-x"]
    assert machine.steps() == ["pip", "pytest"]
    assert course.main(["lab"]) == course.main(["test"]) == course.main(["test", "--browser"]) == 0
    assert machine.steps() == ["jupyterlab", "ruff", "pytest", "pytest"]
    machine.fails["pytest"] = 1
    assert course.main(["test", "--browser"]) == 1


def test_the_thorough_tests_need_nothing_more_and_run_on_all_cores(machine, monkeypatch):
    monkeypatch.setattr(course.os, "cpu_count", lambda: 2)
    course.main(["test"])
    machine.steps()
    assert course.main(["test", "--thorough"]) == 0
    assert machine.commands[-1][1:] == ["-m", "pytest", "-m", "thorough", "tests", "-n", "2"]
    assert course.main(["test", "--thorough", "tests/test_kernels_compiled.py"]) == 0
    assert machine.commands[-1][1:] == ["-m", "pytest", "-m", "thorough", "tests/test_kernels_compiled.py"]
    assert machine.steps() == ["pytest", "pytest"]
    machine.fails["pytest"] = 1
    assert course.main(["test", "--thorough"]) == 1


def test_two_kinds_of_tests_at_once_are_refused_before_anything_is_installed(machine, monkeypatch, capsys):
    monkeypatch.setattr(course, "chromium", lambda: "/usr/bin/chromium")
    for both in (["--browser", "--thorough"], ["--thorough", "-x", "--browser"]):
        message = stopped(capsys, course.main, ["test", *both])
        assert message == "course: --browser and --thorough are two runs: give one of them, and then the other.\n"
    assert machine.commands == []


def test_without_a_browser_its_tests_are_skipped_and_nothing_is_installed(machine, monkeypatch, capsys):
    monkeypatch.setattr(course, "chromium", lambda: None)
    assert course.main(["test", "--browser"]) == 0 and machine.commands == []
    said = capsys.readouterr().out
    assert said.startswith("course: skipped") and "apt install chromium" in said and "SORALAB_CHROMIUM" in said


@pytest.mark.parametrize("named, installed, found", [
    ("", [], None), ("", ["google-chrome"], "google-chrome"), ("", ["google-chrome", "chromium"], "chromium"),
    ("elsewhere/chrome", ["chromium"], "elsewhere/chrome"),
])
def test_which_browser(monkeypatch, named, installed, found):
    monkeypatch.setenv("SORALAB_CHROMIUM", named)
    monkeypatch.setattr(course.shutil, "which", lambda name: name if name in installed else None)
    assert course.chromium() == found


@pytest.mark.parametrize("extras", course.EXTRAS)
def test_pip_installs_the_extras_in_editable_form(machine, extras):
    course.set_up(extras)
    assert machine.commands[-1][1:] == ["-m", "pip", "install", "-e", f".[{extras}]"]


def test_changed_pyproject_updates_without_starting_over(machine):
    course.set_up()
    machine.steps()
    (machine.root / "pyproject.toml").write_text("[project]\ndependencies = []\n")
    course.set_up()
    assert machine.steps() == ["pip"]
    course.set_up()
    assert machine.steps() == []


def test_line_endings_do_not_make_it_stale(machine):
    """Git on Windows may check pyproject.toml out with other line endings than it was stamped with."""
    before = course.wanted_stamp()
    (machine.root / "pyproject.toml").write_bytes(b"[project]\r\n")
    assert course.wanted_stamp() == before


@pytest.mark.parametrize("broken_at", ["venv", "pip"])
def test_interrupted_setup_is_mended_by_the_next_call(machine, monkeypatch, broken_at):
    def interrupted(command, env=None, note=None):
        code = machine.run(command, env, note)
        if broken_at in command:
            raise KeyboardInterrupt
        return code

    monkeypatch.setattr(course, "run", interrupted)
    assert course.main(["lab"]) == 130
    assert course.read_json(course.STAMP) != course.wanted_stamp()
    machine.steps()
    monkeypatch.setattr(course, "run", machine.run)
    assert course.main(["lab"]) == 0
    assert machine.steps() == ["pip", "jupyterlab"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pyproject": 3}'])
def test_damaged_stamp_is_a_missing_stamp(machine, content):
    course.set_up()
    machine.steps()
    (machine.root / ".venv" / "soralab.json").write_text(content)
    course.set_up()
    assert machine.steps() == ["pip"]
    assert machine.stamp() == course.wanted_stamp()


def test_stamp_is_complete_only_after_pip(machine, capsys):
    machine.fails["-e"] = 1
    message = stopped(capsys, course.main, ["lab"])
    assert "network" in message and "call this again" in message
    assert "pyproject" not in machine.stamp()
    assert machine.steps() == ["venv", "pip"]             # JupyterLab was not started on a broken set-up


def test_moved_folder_is_made_anew(machine, monkeypatch, tmp_path_factory, capsys):
    course.set_up()
    machine.steps()
    moved = tmp_path_factory.mktemp("elsewhere") / "course"
    machine.root.rename(moved)
    monkeypatch.setattr(course, "ROOT", str(moved))
    monkeypatch.setattr(course, "ENV", str(moved / ".venv"))
    monkeypatch.setattr(course, "STAMP", str(moved / ".venv" / "soralab.json"))
    course.set_up()
    assert machine.steps() == ["venv", "pip"]
    assert "moved" in capsys.readouterr().out
    assert json.loads((moved / ".venv" / "soralab.json").read_text())["place"] == str(moved / ".venv")


@pytest.mark.parametrize("answer, reason", [(None, "does not start"), ("3.8\n", "Python 3.8")])
def test_environment_of_another_or_no_python_is_made_anew(machine, capsys, answer, reason):
    course.set_up()
    machine.steps()
    stamp = machine.stamp()
    machine.answer = answer
    (machine.root / ".venv" / "soralab.json").write_text(json.dumps({**stamp, "python": "3.8"}))
    course.set_up()
    assert machine.steps() == ["venv", "pip"]
    assert reason in capsys.readouterr().out


def test_environment_whose_python_vanished_is_made_anew(machine):
    """The system's Python was upgraded: the stamp is right, but .venv's Python is a link to nothing."""
    course.set_up()
    machine.steps()
    os.remove(course.python())
    course.set_up()
    assert machine.steps() == ["venv", "pip"]


def test_an_environment_made_by_hand_is_kept(machine):
    python = Path(course.python())
    python.parent.mkdir(parents=True)
    python.touch()
    course.set_up()
    assert machine.steps() == ["pip"]


def test_never_replaces_the_environment_that_runs_it(machine, monkeypatch, capsys):
    course.set_up()
    machine.answer = None
    (machine.root / ".venv" / "soralab.json").unlink()
    monkeypatch.setattr(course.sys, "prefix", course.ENV)
    machine.steps()
    assert "deactivate" in stopped(capsys, course.set_up)
    assert machine.steps() == []


def test_missing_ensurepip_names_the_package_to_install(machine, monkeypatch, capsys):
    monkeypatch.setattr(course, "missing_modules", lambda: ["ensurepip"])
    message = stopped(capsys, course.main, ["lab"])
    assert "ensurepip" in message and "apt install python3-venv" in message
    assert machine.commands == []


def test_missing_modules_looks_at_this_python(monkeypatch):
    import importlib.util

    assert course.missing_modules() == []
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ensurepip" else real(name))
    assert course.missing_modules() == ["ensurepip"]


def test_venv_that_fails_is_explained(machine, capsys):
    machine.fails["venv"] = 1
    assert "apt install python3-venv" in stopped(capsys, course.main, ["test"])


def test_low_disk_stops_before_anything_is_made(machine, monkeypatch, capsys):
    monkeypatch.setattr(course, "free_gb", lambda folder: 1.5)
    message = stopped(capsys, course.main, ["lab"])
    assert "1.5 GB free" in message and "Make room" in message
    assert machine.commands == []


@pytest.mark.parametrize("same_disk, temp_free, free, enough", [
    (True, 50, 9.5, True), (True, 50, 8.5, False),        # one disk takes the downloads and the environment
    (False, 50, 6.5, True), (False, 50, 5.5, False),      # the downloads go to a disk of their own
    (False, 0.5, 8.5, False), (False, 0.5, 9.5, True),    # which is too small, so they go beside the environment
])
def test_disk_space_is_counted_where_it_is_used(machine, monkeypatch, same_disk, temp_free, free, enough):
    temp = "temporary"
    monkeypatch.setattr(course, "ENVIRONMENT_GB", 6.0)
    monkeypatch.setattr(course, "DOWNLOADS_GB", 3.0)
    monkeypatch.setattr(course.tempfile, "gettempdir", lambda: temp)
    monkeypatch.setattr(course, "free_gb", lambda folder: temp_free if folder == temp else free)
    disks = {temp: 1 if same_disk else 2, course.ROOT: 1}
    monkeypatch.setattr(course, "disk_of", disks.__getitem__)
    if enough:
        course.check_disk()
        assert machine.commands == []
    else:
        with pytest.raises(SystemExit):
            course.check_disk()


def test_disk_that_fills_up_during_pip_is_named(machine, monkeypatch, capsys):
    machine.fails["-e"] = 1
    course.make_environment()
    monkeypatch.setattr(course, "free_gb", lambda folder: 0.1)
    assert "disk is full" in stopped(capsys, course.set_up)


def test_small_temporary_disk_is_avoided(machine, monkeypatch):
    monkeypatch.setattr(course, "temp_is_small", lambda: True)
    course.set_up()
    downloads = os.path.join(course.ENV, "downloads")
    assert machine.environments[-1]["TMPDIR"] == downloads
    assert not os.path.exists(downloads)                  # nothing is left of it


def test_pip_inherits_the_callers_configuration(machine, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "https://packages.example/simple")
    course.set_up()
    assert machine.environments[-1]["PIP_INDEX_URL"] == "https://packages.example/simple"


def test_full_disk_while_writing_the_stamp_is_one_line(machine, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(course, "write_json", full)
    assert "No space left" in stopped(capsys, course.main, ["lab"])


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has no root")
@pytest.mark.parametrize("uid, given, expected", [(0, [], 1), (1000, [], 0), (0, ["--allow-root"], 1)])
def test_root_gets_its_flag_once(machine, monkeypatch, uid, given, expected):
    monkeypatch.setattr(course.os, "geteuid", lambda: uid)
    course.main(["lab", *given])
    assert machine.commands[-1].count("--allow-root") == expected


def test_lab_opens_the_first_notebook_and_passes_options_on(machine):
    course.main(["lab", "--no-browser", "--port=9000"])
    command = machine.commands[-1]
    assert command[:3] == [course.python(), "-m", "jupyterlab"]
    assert command[-2:] == ["--no-browser", "--port=9000"]
    assert "--LabApp.default_url=/lab/tree/notebooks/00_road_to_sora.ipynb" in command
    assert "--ServerApp.root_dir=" + course.ROOT in command
    assert machine.environments[-1]["PATH"].split(os.pathsep)[0] == os.path.dirname(course.python())


@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/it's my \\ fish", ""])
def test_a_terminal_in_jupyterlab_is_no_login_shell(machine, monkeypatch, shell):
    """JupyterLab adds -l where its output is no terminal, unless it is told the shell; -l would reset PATH."""
    monkeypatch.setattr(course, "WINDOWS", False)
    monkeypatch.setenv("SHELL", shell)
    course.main(["lab"])
    [option] = [word for word in machine.commands[-1] if word.startswith("--ServerApp.terminado_settings=")]
    server = pytest.importorskip("jupyter_server.serverapp").ServerApp()
    server.parse_command_line([option])
    [told] = shlex.split(server.terminado_settings["shell_command"])
    assert told == shell or not shell and Path(told).name in ("bash", "sh")


def test_windows_layout(machine, monkeypatch):
    monkeypatch.setattr(course, "WINDOWS", True)
    assert course.python() == os.path.join(course.ENV, "Scripts", "python.exe")
    assert course.main(["lab"]) == 0
    assert machine.steps() == ["venv", "pip", "jupyterlab"]
    assert course.main(["lab"]) == 0
    assert machine.steps() == ["jupyterlab"]


def test_jupyterlab_asks_the_network_for_nothing(machine):
    course.set_up()
    path = Path(course.ENV, "share", "jupyter", "lab", "settings", "overrides.json")
    settings = json.loads(path.read_text())["@jupyterlab/apputils-extension:notification"]
    assert settings == {"fetchNews": "false", "checkForUpdates": False}


@pytest.mark.parametrize("file", ["soralab.json", "overrides.json"])
def test_a_file_that_is_cut_off_while_it_is_written_is_not_there(machine, monkeypatch, file):
    """And the next call writes it whole."""
    def cut(content, handle):
        if file in handle.name:
            handle.write("{")
            handle.flush()
            raise KeyboardInterrupt
        dump(content, handle)

    dump = json.dump
    monkeypatch.setattr(course.json, "dump", cut)
    assert course.main(["lab"]) == 130
    assert [path.name for path in Path(course.ENV).rglob(file)] == []
    monkeypatch.setattr(course.json, "dump", dump)
    assert course.main(["lab"]) == 0
    assert [path.name for path in Path(course.ENV).rglob(file + "*") if json.loads(path.read_text())] == [file]


@pytest.mark.parametrize("broken", [b"", b'{"@jupyterlab/apputils-ext', b"null", b"[]", b"\xff\xfe", None])
def test_broken_settings_of_jupyterlab_are_written_anew(machine, monkeypatch, broken):
    """Also where all else is as it should be: half a file would stay for good, and stop JupyterLab."""
    course.main(["lab"])
    path = Path(course.ENV, "share", "jupyter", "lab", "settings", "overrides.json")
    right = path.read_bytes()
    path.unlink() if broken is None else path.write_bytes(broken)
    machine.steps()
    renamed, replace = [], os.replace
    monkeypatch.setattr(course.os, "replace", lambda old, new: renamed.append(new) or replace(old, new))
    assert course.main(["lab"]) == 0 and machine.steps() == ["jupyterlab"]
    assert path.read_bytes() == right and renamed == [str(path)]  # whole or not at all
    assert course.main(["lab"]) == 0 and len(renamed) == 1


def test_a_readers_own_settings_of_jupyterlab_stay(machine):
    course.set_up()
    path = Path(course.ENV, "share", "jupyter", "lab", "settings", "overrides.json")
    for own in ('{"@jupyterlab/apputils-extension:themes": {"theme": "JupyterLab Dark"}}', "{}"):
        path.write_text(own)
        course.main(["lab"])
        assert path.read_text() == own


@pytest.mark.parametrize("tests, ruff, expected", [(0, 0, 0), (1, 0, 1), (5, 0, 5), (0, 1, 1), (3, 1, 3)])
def test_exit_code_of_the_tests_is_the_commands(machine, capsys, tests, ruff, expected):
    machine.fails = {"pytest": tests, "ruff": ruff}
    assert course.main(["test"]) == expected
    assert machine.steps()[-2:] == ["ruff", "pytest"]
    # Said last: thousands of passed tests stand between ruff's lines and the end.
    assert ("ruff" in capsys.readouterr().out.splitlines()[-1]) == bool(ruff)


def test_pytest_gets_the_arguments_as_they_are(machine):
    course.main(["test", "-x", "tests/test_house.py"])
    assert machine.commands[-1][1:] == ["-m", "pytest", "-x", "tests/test_house.py"]


@pytest.mark.parametrize("cores, options", [(1, []), (None, []), (2, ["-n", "2"]), (64, ["-n", "4"])])
def test_all_tests_run_on_several_cores(machine, monkeypatch, cores, options):
    monkeypatch.setattr(course.os, "cpu_count", lambda: cores)
    course.main(["test"])
    assert machine.commands[-1][1:] == ["-m", "pytest", *options]


@pytest.mark.parametrize("arguments, code", [([], 2), (["play"], 2), (["--help"], 0)])
def test_usage(machine, capsys, arguments, code):
    assert course.main(arguments) == code
    said = capsys.readouterr()
    assert "course.py lab" in (said.out if code == 0 else said.err)
    assert machine.commands == []


def test_old_python_is_told_so(machine, monkeypatch, capsys):
    monkeypatch.setattr(course.sys, "version_info", (3, 8, 18))
    message = stopped(capsys, course.main, ["lab"])
    assert "Python 3.8" in message and "3.10 or newer" in message
    assert machine.commands == []
