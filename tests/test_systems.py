"""Windows has not all that Linux and macOS have: what is taken from there is asked for first, and files say their
encoding. No host with Windows has run the course yet, so the source is read."""
import ast
import os
import signal
from pathlib import Path

import pytest
import team_runs

ROOT = Path(__file__).resolve().parents[1]
MODULES = {"fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "syslog", "readline"}
NAMES = {
    "os": {"fork", "forkpty", "mkfifo", "mknod", "getuid", "geteuid", "getgid", "getpgid", "killpg", "setsid", "nice",
           "uname", "getloadavg", "sched_getaffinity", "chown", "fchmod", "statvfs", "sysconf", "wait", "WNOHANG"},
    "signal": {"SIGKILL", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD", "SIGPIPE", "SIGSTOP",
               "SIGCONT", "alarm", "setitimer", "pthread_kill", "pause", "sigwait"},
}  # fmt: skip
GUARDS = ("hasattr", "getattr", "os.name", "sys.platform", "needs_", "skipif", "geteuid() == 0")
CALLED_UNDER_ONE = {"tests/test_faults_runs.py": {"os.fork"}}  # by a function that only tests with needs_fork call


def taken(source: str) -> set[str]:
    """What Windows lacks and a source takes, where nothing around it asks which system this is."""
    found, tree = set(), ast.parse(source)

    def visit(node: ast.AST, asked: bool) -> None:
        if isinstance(node, ast.If | ast.IfExp | ast.BoolOp):
            test = node.values[0] if isinstance(node, ast.BoolOp) else node.test
            asked |= any(guard in ast.unparse(test) for guard in GUARDS)
        if isinstance(node, ast.FunctionDef):
            asked |= any(guard in ast.unparse(each) for each in node.decorator_list for guard in GUARDS)
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name in MODULES and not asked)
        if isinstance(node, ast.ImportFrom) and node.module in MODULES and not asked:
            found.add(node.module)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and not asked:
            if node.attr in NAMES.get(node.value.id, ()):
                found.add(f"{node.value.id}.{node.attr}")
        for part in ast.iter_child_nodes(node):
            visit(part, asked)
            if isinstance(part, ast.If) and isinstance(part.body[-1], ast.Return):  # what follows is the other system's
                asked |= any(guard in ast.unparse(part.test) for guard in GUARDS)

    visit(tree, False)
    return found


def without_encoding(source: str) -> list[str]:
    """The calls in a source that read or write text in whatever encoding the machine has."""
    found = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
        said = any(keyword.arg in ("encoding", None) for keyword in call.keywords)
        opens = name == "open" and isinstance(call.func, ast.Name)
        mode = [*call.args[1:2], *(k.value for k in call.keywords if k.arg == "mode")]
        binary = any(isinstance(n, ast.Constant) and "b" in str(n.value) for m in mode for n in ast.walk(m))
        if not said and (opens and not binary or name in ("read_text", "write_text")):
            found.append(ast.unparse(call))
    return found


def files():
    folders = ("soralab", "tests", "notebooks", "benchmarks")
    return [ROOT / "course.py", ROOT / "conftest.py", *(path for f in folders for path in (ROOT / f).rglob("*.py"))]


def test_what_windows_lacks_is_asked_for_first():
    found = {path.relative_to(ROOT).as_posix(): taken(path.read_text(encoding="utf-8")) for path in files()}
    assert len(found) > 400
    assert {name: what for name, what in found.items() if what} == CALLED_UNDER_ONE


@pytest.mark.parametrize("source, found", [
    ("import fcntl", {"fcntl"}), ("from resource import getrusage", {"resource"}),
    ("os.kill(1, signal.SIGKILL)", {"signal.SIGKILL"}), ("def test():\n    os.mkfifo('a')", {"os.mkfifo"}),
    ("if os.name == 'posix':\n    import fcntl", set()), ("hasattr(os, 'getuid') and os.getuid() == 0", set()),
    ("x = os.uname() if hasattr(os, 'uname') else 0", set()), ("@needs_fork\ndef test():\n    os.fork()", set()),
    ("getattr(signal, 'SIGKILL', 15)", set()), ("signal.SIGTERM, os.kill, os.umask", set()),
    ("def f():\n    if sys.platform == 'win32':\n        return\n    import resource", set()),
    ("def f():\n    if quick:\n        return\n    import resource", {"resource"}),
    ("def f():\n    if os.name == 'nt':\n        return\ndef g():\n    import resource", {"resource"}),
])  # fmt: skip
def test_what_windows_lacks_is_found(source, found):
    assert taken(source) == found


def test_the_courses_files_are_read_and_written_in_one_encoding():
    shared = [path for path in files() if "tests" not in path.relative_to(ROOT).parts and path.name != "course.py"]
    found = {path.relative_to(ROOT).as_posix(): without_encoding(path.read_text(encoding="utf-8")) for path in shared}
    assert {name: calls for name, calls in found.items() if calls} == {}


@pytest.mark.parametrize("source, count", [
    ("open(p)", 1), ("open(p, 'w')", 1), ("open(p, mode='a')", 1), ("p.read_text()", 1), ("p.write_text(x)", 1),
    ("open(p, 'rb')", 0), ("open(p, 'ab' if more else 'wb')", 0),
    ("open(p, encoding='utf-8')", 0), ("p.read_text(encoding='utf-8')", 0),
    ("image.open(p)", 0), ("open(p, **options)", 0),
])  # fmt: skip
def test_a_call_without_an_encoding_is_found(source, count):
    assert len(without_encoding(source)) == count


def test_a_process_of_a_team_is_killed_at_once_on_every_system(monkeypatch):
    """tests/test_distributed.py counts on it. On Windows, which has no SIGKILL, os.kill ends a process at once by any
    number but two."""
    asked = []
    monkeypatch.setattr(os, "kill", lambda *given: asked.append(given))
    team_runs.kill(None)
    monkeypatch.delattr(signal, "SIGKILL", raising=False)
    team_runs.kill(None)
    assert [pid for pid, _ in asked] == [os.getpid()] * 2 and asked[1][1] == signal.SIGTERM
    assert asked[0][1] == 9 or os.name == "nt"
