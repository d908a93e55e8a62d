"""Open the course or test it; whatever is missing for that is set up first.

    python3 course.py lab  [JupyterLab's own options, such as --no-browser or --port=9000]
    python3 course.py test [pytest's own options and paths]
    python3 course.py test --thorough [pytest's own options]: what they try, on more chips and a second device
    python3 course.py test --browser [pytest's own options]: a real browser follows the course

All use one environment, the folder .venv beside this file. It is made on the first call (several gigabytes, mostly
PyTorch), brought up to date when pyproject.toml changes, and otherwise left alone. This file needs the standard
library only. An old Python can read it as well: one that is too old should be told so, not shown a syntax error.
"""
from __future__ import print_function

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.realpath(__file__))
ENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(ENV, "soralab.json")
FIRST_PAGE = "/lab/tree/notebooks/00_road_to_sora.ipynb"
OLDEST_PYTHON = (3, 10)
WINDOWS = os.name == "nt"
# What pip installs for each command: the tests also compare the course with other implementations.
LAB, TEST, BROWSER = EXTRAS = ["test", "test,parity", "test,parity,browser"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# PyTorch's Linux wheels bring CUDA with them; those for macOS and Windows do not.
ENVIRONMENT_GB, DOWNLOADS_GB = (6.0, 3.0) if sys.platform.startswith("linux") else (2.0, 1.0)
NOTE_EVERY_S = 30


def say(text):
    """Print one line at once, also when the output goes to a file."""
    print("course: " + text, flush=True)


def stop(text):
    """End with exit code 2 after one message that names the mend."""
    print("course: " + text, file=sys.stderr)
    sys.exit(2)


def python():
    """The path of the environment's Python."""
    return os.path.join(ENV, "Scripts", "python.exe") if WINDOWS else os.path.join(ENV, "bin", "python")


def run(command, env=None, note=None):
    """Run a command in ROOT to its end and return its exit code.

    Ctrl-C reaches the command too, and the command decides what it means (JupyterLab asks, pytest sums up), so here it
    only goes on waiting, and is raised again once the command has failed by it. With a note, that sentence and the
    minutes passed are printed every half minute: a long download into a log would otherwise look as if it hung.
    """
    begin, interrupted = time.time(), False
    process = subprocess.Popen(command, cwd=ROOT, env=env)
    try:
        while process.returncode is None:
            try:
                process.wait(timeout=NOTE_EVERY_S if note else None)
            except subprocess.TimeoutExpired:
                say("%s (%.1f minutes so far)" % (note, (time.time() - begin) / 60))
            except KeyboardInterrupt:
                interrupted = True
    finally:
        if process.poll() is None:
            process.terminate()
    if interrupted and process.returncode:
        raise KeyboardInterrupt
    return process.returncode


# The stamp: what the environment was made from. It is complete only when everything succeeded.


def wanted_stamp(extras=LAB):
    """What a finished environment's stamp says: this pyproject.toml and its extras, this Python, this place."""
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        digest = hashlib.sha256(file.read().replace(b"\r\n", b"\n")).hexdigest()
    return {"pyproject": digest, "extras": extras, "python": "%d.%d" % sys.version_info[:2], "place": ENV}


def read_json(path):
    """What a file of settings says; None where there is none, or it is broken."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_json(path, content):
    """Write a file by renaming, so that a half-written one is never read."""
    with open(path + ".part", "w") as file:
        json.dump(content, file)
    os.replace(path + ".part", path)


# Set-up


def whats_wrong(found, wanted):
    """Why the existing environment must be made anew, in words; "" when pip can build on it as it is."""
    if found.get("place", ENV) != ENV:
        return "the folder was moved, and an environment remembers where it was made"
    try:
        ask = "import sys, pip; print('%d.%d' % sys.version_info[:2])"
        answer = subprocess.check_output([python(), "-c", ask], stderr=subprocess.STDOUT)
    except (OSError, subprocess.CalledProcessError):
        return "its Python or its pip does not start"
    version = answer.decode("utf-8", "replace").strip()
    return "" if version == wanted["python"] else "it has Python %s, this is %s" % (version, wanted["python"])


def missing_modules():
    """Which of the standard library's modules for environments this Python lacks (Debian splits them off)."""
    from importlib.util import find_spec
    return [name for name in ("venv", "ensurepip") if find_spec(name) is None]


def free_gb(folder):
    """Free space on the disk that holds the folder, in gigabytes."""
    return shutil.disk_usage(folder).free / 1e9


def disk_of(folder):
    """A number that two folders share if they lie on one disk."""
    return os.stat(folder).st_dev


def temp_is_small():
    """Whether pip's downloads would not fit where temporary files go (often a small disk in memory)."""
    temp = tempfile.gettempdir()
    return disk_of(temp) != disk_of(ROOT) and free_gb(temp) < DOWNLOADS_GB


def check_disk():
    """Stop before a long download that cannot end well."""
    shared = temp_is_small() or disk_of(tempfile.gettempdir()) == disk_of(ROOT)
    need, free = ENVIRONMENT_GB + (DOWNLOADS_GB if shared else 0), free_gb(ROOT)
    if free < need:
        stop(
            "the disk of %s has %.1f GB free, and setting up takes about %.0f GB.\n"
            "  Make room there, or move this folder to a larger disk. Without a GPU, PyTorch's smaller CPU\n"
            "  build does as well: make .venv yourself (%s -m venv .venv), install torch and torchvision\n"
            "  of the CPU build into it (pytorch.org says how), and call this again: it keeps what it finds."
            % (ROOT, free, need, "py" if WINDOWS else "python3")
        )


def make_environment():
    """Make an empty .venv, replacing one that is of no use any more."""
    if os.path.realpath(sys.prefix) == os.path.realpath(ENV):
        stop(".venv must be made anew, but its own Python runs this: type `deactivate`, then try again.")
    missing = missing_modules()
    if missing:
        stop(
            "this Python (%s) lacks %s, so it cannot make an environment. On Debian and Ubuntu:\n"
            "      sudo apt install python3-venv\n"
            "  Elsewhere: a complete Python from python.org. Then call this again."
            % (sys.executable, " and ".join(missing))
        )
    check_disk()
    say("making the environment .venv with Python %d.%d.%d" % sys.version_info[:3])
    code = run([sys.executable, "-m", "venv", "--clear", ENV])
    if code:
        stop(
            "making .venv failed (exit code %d; the reason is above). If it speaks of ensurepip:\n"
            "      sudo apt install python3-venv\n"
            "  If it speaks of permissions: this folder must be yours to write. Then call this again." % code
        )


def pip_environment(downloads):
    """The variables pip runs with: the caller's own (index, proxy, cache), downloads in .venv if need be."""
    env = dict(os.environ)
    if temp_is_small():
        os.makedirs(downloads, exist_ok=True)
        env["TMPDIR"] = env["TEMP"] = env["TMP"] = downloads
    return env


def install(extras):
    """Install the course and everything it needs into .venv with pip."""
    downloads = os.path.join(ENV, "downloads")
    shutil.rmtree(downloads, ignore_errors=True)
    say("installing the packages; the first time, about %.0f GB are downloaded" % DOWNLOADS_GB)
    say("(the last step, 'Installing collected packages', is silent for a minute or two)")
    note = None if sys.stdout.isatty() else "pip is still at work"       # on a terminal pip draws its own bar
    pip = [python(), "-m", "pip", "install"]
    env = pip_environment(downloads)
    # A pip older than 22 cannot install a folder without setup.py in editable form; a newer one stays.
    code = run(pip + ["-q", "pip>=22"], env) or run(pip + ["-e", ".[%s]" % extras], env, note)
    shutil.rmtree(downloads, ignore_errors=True)
    if code and free_gb(ROOT) < 0.5:
        stop("the disk is full. Make room (%.0f GB), then call this again: it goes on." % ENVIRONMENT_GB)
    if code:
        stop(
            "pip could not install the packages (exit code %d; its own words are above).\n"
            "  Most often the network is down, or a proxy or a private index is not set (pip reads\n"
            "  HTTPS_PROXY, PIP_INDEX_URL and its configuration); %.1f GB are free on this disk.\n"
            "  Nothing is lost: call this again, it goes on." % (code, free_gb(ROOT))
        )


def quiet_lab():
    """JupyterLab asks the network for news and updates unless told otherwise; the course works offline."""
    path = os.path.join(ENV, "share", "jupyter", "lab", "settings", "overrides.json")
    if read_json(path) is None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        no_news = {"fetchNews": "false", "checkForUpdates": False}
        write_json(path, {"@jupyterlab/apputils-extension:notification": no_news})


def set_up(extras=LAB):
    """Make .venv fit this pyproject.toml, this Python and this place. Where it does, only lost settings are mended."""
    found = read_json(STAMP) or {}
    there = found.get("extras")
    wanted = wanted_stamp(max(extras, there if there in EXTRAS else LAB, key=EXTRAS.index))  # what is there stays
    if found == wanted and os.path.exists(python()):
        return quiet_lab()
    if not os.path.isdir(ENV):
        make_environment()
    else:
        reason = whats_wrong(found, wanted)
        if reason:
            say("the environment .venv is made anew: " + reason)
            make_environment()
        elif found.get("pyproject") == wanted["pyproject"]:
            say("adding the libraries that these tests need")
        elif found.get("pyproject"):
            say("pyproject.toml has changed: bringing .venv up to date")
        else:
            say("the set-up of .venv was not finished: going on")
    # Without "pyproject" the stamp says "begun"; it is completed only after pip succeeded.
    write_json(STAMP, {"extras": wanted["extras"], "python": wanted["python"], "place": ENV})
    install(wanted["extras"])
    quiet_lab()
    write_json(STAMP, wanted)
    say("the environment is ready")


# The two commands


def inside():
    """The variables of an activated .venv, so that `soralab` is found in JupyterLab's terminals as well."""
    env = dict(os.environ)
    env.pop("PYTHONHOME", None)
    env["VIRTUAL_ENV"] = ENV
    env["PATH"] = os.path.dirname(python()) + os.pathsep + env.get("PATH", "")
    return env


def lab(arguments):
    """Open JupyterLab at the first notebook; it prints its address. Returns its exit code."""
    set_up()
    # Given as a page, not as a file: then the printed address leads to the notebook as well.
    options = ["--ServerApp.root_dir=" + ROOT, "--LabApp.default_url=" + FIRST_PAGE]
    if hasattr(os, "geteuid") and os.geteuid() == 0 and "--allow-root" not in arguments:
        options.append("--allow-root")                                   # JupyterLab refuses root otherwise
    if not WINDOWS:
        # Where its output is no terminal, JupyterLab opens login shells, which set PATH anew and lose `soralab`.
        shell = os.environ.get("SHELL") or shutil.which("bash") or "sh"
        escaped = re.sub(r"([\s'\"\\])", r"\\\1", shell)  # traitlets takes quotes round it away, and shlex splits it
        options.append("--ServerApp.terminado_settings=shell_command=" + escaped)
    say("JupyterLab is starting: its address stands below in a few seconds. Ctrl-C ends it.")
    return run([python(), "-m", "jupyterlab"] + options + list(arguments), inside())


def test(arguments):
    """Run ruff, then pytest: over tests and notebooks on several cores, or with exactly the arguments that are given.
    Returns pytest's exit code; ruff's if only ruff failed."""
    if "--browser" in arguments and "--thorough" in arguments:
        stop("--browser and --thorough are two runs: give one of them, and then the other.")
    for option, others in (("--browser", in_a_browser), ("--thorough", thoroughly)):
        if option in arguments:
            return others([argument for argument in arguments if argument != option])
    set_up(TEST)
    ruff = run([python(), "-m", "ruff", "check", "."], inside())
    tests = run([python(), "-m", "pytest"] + (list(arguments) or on_cores()), inside())
    if ruff:
        say("ruff found the places at the top of this; with them, a test run counts as failed")
    return tests or ruff


def on_cores():
    """pytest's options for the cores that are here."""
    cores = os.cpu_count() or 1
    return ["-n", str(min(4, cores))] if cores > 1 else []


def thoroughly(arguments):
    """Run the tests that try again, on other chips and a second device, what `test` has tried. Returns their code."""
    set_up(TEST)
    return run([python(), "-m", "pytest", "-m", "thorough"] + (arguments or ["tests"] + on_cores()), inside())


def chromium():
    """The Chromium or Chrome that the tests drive: the one SORALAB_CHROMIUM names, else one on the path, or None."""
    return os.environ.get("SORALAB_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)


def in_a_browser(arguments):
    """Let a real browser follow the course in JupyterLab. Returns pytest's exit code; 0 where there is no browser."""
    if not chromium():
        say(
            "skipped: there is no Chromium or Chrome on this machine for the tests to drive. On Debian and Ubuntu:\n"
            "      sudo apt install chromium\n"
            "  One that lies elsewhere is named in SORALAB_CHROMIUM."
        )
        return 0
    set_up(BROWSER)
    return run([python(), "-m", "pytest", "-m", "browser", "tests/test_browser.py"] + arguments, inside())


def main(arguments):
    """Check the Python, then do what the first argument says. Returns the exit code."""
    if sys.version_info < OLDEST_PYTHON:
        stop(
            "this is Python %d.%d, and the course needs %d.%d or newer.\n"
            "  If you have a newer one, name it, for example: python3.12 course.py lab.\n"
            "  If not: python.org, or your system's package manager."
            % (sys.version_info[:2] + OLDEST_PYTHON)
        )
    commands = {"lab": lab, "test": test}
    if not arguments or arguments[0] not in commands:
        asked_for_help = bool(arguments) and arguments[0] in ("-h", "--help", "help")
        print(__doc__.strip(), file=sys.stdout if asked_for_help else sys.stderr)
        return 0 if asked_for_help else 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))              # so that run() ends what it started
    try:
        return commands[arguments[0]](arguments[1:])
    except KeyboardInterrupt:
        say("interrupted. Nothing is lost: the same command goes on from here.")
        return 130
    except OSError as error:
        stop("%s. Mend that (often it is space or permissions) and call this again: it goes on." % error)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
