"""Do the notebooks' outputs hold on other processors? Each page, run as one of them and compared as the tests compare.

    python tests/cpu_classes.py [--only default avx2 avx512 streams] [NN ...]

PyTorch has its loops compiled for several classes of processors and takes the best that it finds; ATEN_CPU_CAPABILITY
asks for a lesser one, whose sums are rounded otherwise. Its libraries are held to that class too. "streams" is another
matter: `multinomial`, `bernoulli` and `exponential_`, and so dropout, take their random numbers by other algorithms
where PyTorch was built without Intel's library, as on a Mac. Here each takes one number more than it should: whatever
was drawn by them, or after them from the same generator, is drawn otherwise. Nothing compared may depend on it.

Tells for each page and class how many cells were compared and which differ. Half a minute a page and class.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CLASSES = {
    "default": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "avx512": {"ATEN_CPU_CAPABILITY": "avx512"},
    "streams": {},
}
# Python imports it before anything else; it waits for torch, which notebook 17 wants to import at its own time.
OTHER_STREAMS = """
import functools, importlib.util, sys


def later(draw, torch, random=lambda *args, **kwargs: True):
    @functools.wraps(draw)
    def drawn(*args, **kwargs):
        if random(*args, **kwargs):
            torch.rand((), generator=kwargs.get("generator"))
        return draw(*args, **kwargs)
    return drawn


def other_streams(torch):
    for name in ("multinomial", "bernoulli", "bernoulli_", "exponential_"):
        for owner in (torch, torch.Tensor):
            if hasattr(owner, name):
                setattr(owner, name, later(getattr(owner, name), torch))
    F = torch.nn.functional
    F.dropout = later(F.dropout, torch, lambda input, p=0.5, training=True, inplace=False: training and p > 0)


class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (run(module), other_streams(module))
        return spec


sys.meta_path.insert(0, Finder())
"""


def environment(kind: str, folder: Path) -> dict[str, str]:
    """The variables that make a process one of such a processor. folder: where "streams" writes what it needs."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    if kind == "streams":
        (folder / "sitecustomize.py").write_text(OTHER_STREAMS, encoding="utf-8")
        paths.insert(0, str(folder))
    return {**os.environ, **CLASSES[kind], "PYTHONPATH": os.pathsep.join(paths)}


def known(kind: str, env: dict[str, str]) -> bool:
    """Whether this machine can play such a processor: asked for a better one than it is, PyTorch takes its own."""
    if kind == "streams":
        return True
    ask = [sys.executable, "-c", "import torch; print(torch.backends.cpu.get_cpu_capability())"]
    return subprocess.run(ask, env=env, capture_output=True, text=True).stdout.strip().lower() == kind


def compare(path: Path, env: dict[str, str]) -> tuple[str, int]:
    """pytest's account of a page: the names of the cells that differ with its last line, and its exit code."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rfE", str(path)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    names = [re.sub(r"^(?:FAILED|ERROR) \S+::(?:Cell|ipynb)?\s*", "", line) for line in lines
             if line.startswith(("FAILED", "ERROR"))]  # fmt: skip
    return "; ".join([*lines[-1:], *names]) or done.stderr.strip()[-200:], done.returncode


def main(arguments: list[str] | None = None) -> int:
    """Compare the pages by the classes that were asked for; returns 1 if an output differs."""
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].strip(), description=__doc__.split("\n\n")[0])
    parser.add_argument("numbers", nargs="*", metavar="NN")
    parser.add_argument("--only", nargs="+", choices=CLASSES, default=list(CLASSES))
    asked = parser.parse_args(arguments)
    pages = [path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
             if not asked.numbers or path.name[:2] in asked.numbers]  # fmt: skip
    differ = 0
    for kind in asked.only:
        with tempfile.TemporaryDirectory() as folder:
            env = environment(kind, Path(folder))
            if not known(kind, env):
                print(f"{kind:8s} this machine cannot play it")
                continue
            for path in pages:
                told, code = compare(path, env)
                differ |= bool(code)
                print(f"{kind:8s} {path.stem:24s} {told}", flush=True)
    return int(differ)


if __name__ == "__main__":
    sys.exit(main())
