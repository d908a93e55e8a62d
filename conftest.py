"""What every test run shares: one fixed environment, and what nbval lacks for notebooks with floats in them.

nbval starts a kernel for each notebook; kernels inherit this process's environment, so ENV reaches them.
`notebooks/execute.py` executes the committed notebooks with the same ENV, except for the profile.
"""
import math
import os
import re
import signal
import time
from queue import Empty

import pytest

ENV = {
    "SORALAB_PROFILE": "smoke",        # seconds a chapter; what is compared must not depend on the profile
    "SORALAB_PROGRESS": "off",         # exercises that tests solve are not the reader's
    "SORALAB_DATASET": "",             # on the world
    "TQDM_DISABLE": "1",               # no dead progress bars in stored outputs
    "CUDA_VISIBLE_DEVICES": "",        # the processor's numbers are the checked ones
    "OMP_NUM_THREADS": "1",            # two processes with two threads each on two cores are slower than one
    "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "NO_COLOR": "1",
    "COLUMNS": "100",
}
SEEN = os.environ.get("CUDA_VISIBLE_DEVICES")  # by the caller
# Set, not defaulted: a profile exported in the caller's shell would make other outputs than the stored ones.
os.environ.update(ENV)


def pytest_configure(config):
    """With `-m cuda`, and only then, the GPU is left to be seen: the tests with that marker are for it."""
    if config.option.markexpr == "cuda":
        os.environ.pop("CUDA_VISIBLE_DEVICES")
        if SEEN is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = SEEN


# A run that a shell started in the background inherits "ignore Ctrl-C"; tests that send it want Python's own answer.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Another processor moves the seventh digit of a float; a wrong result moves the first.
RTOL, ATOL = 1e-3, 1e-5
FLOAT = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?\d+[eE][-+]?\d+")

LONGEST = ("test_kernels", "test_device_chapters")       # the files whose tests take longest
ON_DEMAND = {"browser": "where there is a browser", "thorough": "minutes, of what others try too"}

PICTURE = re.compile(r"(\bdata:image/[\w+.-]+;base64,)[A-Za-z0-9+/=]+")
WIDTH = re.compile(r'(?<=\bwidth=")\d+(?=" src="data:image/)')
WIDER = 2                                                # pixels: a matplotlib's release draws letters a little wider
FILM = re.compile(r"\bfilm-[0-9a-f]{8}(?:_\d+)?\b")      # a film's name is made of its bytes


def snap(text: str, reference: str, rtol: float = RTOL) -> str:
    """Return `reference` where `text` differs from it only by floats within the tolerance, else `text`.

    Integers are compared exactly: a shape or a count that is off by one is off.
    """
    if FLOAT.sub("#", text).split() != FLOAT.sub("#", reference).split():
        return text
    pairs = zip(FLOAT.findall(text), FLOAT.findall(reference), strict=True)
    close = all(math.isclose(float(a), float(b), rel_tol=rtol, abs_tol=ATOL) for a, b in pairs)
    return reference if close else text


def tolerance(tags: list[str]) -> float:
    """The relative tolerance of a cell: the one in its tag `rtol=0.05`, or the usual one."""
    return next((float(tag[5:]) for tag in tags if tag.startswith("rtol=")), RTOL)


def _texts(outputs):
    """The comparable texts of a cell's outputs: [(key, container, name in the container)] in order."""
    for output in outputs:
        if output.output_type == "stream":
            yield output.name, output, "text"
        for kind in output.get("data", {}):
            if kind.startswith("text/") and isinstance(output.data[kind], str):
                yield kind, output.data, kind


def mask_pictures(outputs) -> None:
    """Blank the bytes of the pictures in HTML outputs: they differ from machine to machine. Their words and the rest of
    the HTML stay, and are compared."""
    for kind, container, name in _texts(outputs):
        if kind == "text/html":
            container[name] = PICTURE.sub(r"\1...", FILM.sub("film-...", container[name]))


def snap_widths(text: str, reference: str) -> str:
    """`text` with its pictures as wide as in `reference`, where none differs by more than WIDER."""
    fresh, stored = WIDTH.findall(text), WIDTH.findall(reference)
    if len(fresh) != len(stored) or any(abs(int(a) - int(b)) > WIDER for a, b in zip(fresh, stored, strict=True)):
        return text
    widths = iter(stored)
    return WIDTH.sub(lambda _: next(widths), text)


def without_triton(tags: list[str]) -> bool:
    """Whether a cell says other things here than where Triton can be used: it has the tag `triton`, and it cannot."""
    if "triton" not in tags:
        return False
    from soralab.kernels.dispatch import why_no_triton

    return bool(why_no_triton())


def _snap_outputs(outputs, references, rtol):
    """Snap each text of a cell to the stored text of the same kind and rank."""
    stored = {}
    for key, container, name in _texts(references):
        stored.setdefault(key, []).append(container[name])
    for key, container, name in _texts(outputs):
        if stored.get(key):
            reference = stored[key].pop(0)
            container[name] = snap(snap_widths(container[name], reference), reference, rtol)


def _await_reply(self, msg_id, timeout=None):
    """Wait for a cell to end. nbval itself waits the whole timeout for a kernel that has died; this looks."""
    end = time.monotonic() + (timeout or 2000)
    while True:
        left = end - time.monotonic()
        try:
            message = self.get_message(stream="shell", timeout=max(0.05, min(2.0, left)))
        except Empty:
            if not self.is_alive():
                raise RuntimeError("the kernel died (out of memory, or the cell ended the process)") from None
            if left <= 0:
                raise
            continue
        if message["parent_header"].get("msg_id") == msg_id:
            if message["content"]["status"] == "aborted":
                raise RuntimeError("the kernel refused to run the cell")
            return


try:
    from nbval.kernel import RunningKernel
    from nbval.plugin import IPyNbCell
except ImportError:                    # the package's own tests run without nbval
    IPyNbCell = ()
else:
    _nbval_compare = IPyNbCell.compare_outputs

    def _compare_outputs(self, test, ref, skip_compare=None):
        tags = self.cell.metadata.get("tags", [])
        if without_triton(tags):
            return True
        mask_pictures(test)
        mask_pictures(ref)
        _snap_outputs(test, ref, tolerance(tags))
        return _nbval_compare(self, test, ref, skip_compare)

    IPyNbCell.compare_outputs = _compare_outputs
    RunningKernel.await_reply = _await_reply


def pytest_collection_modifyitems(items):
    """Mark notebook cells (`-m "not notebook"` leaves them out) and give a busy machine time for outputs. What is in
    ON_DEMAND is run only where it is asked for.

    What takes minutes in one piece begins first, the kernels and then the notebooks: begun last, it would keep one
    process busy while the others have nothing left to do.
    """
    for item in items:
        for marker, when in ON_DEMAND.items():
            if item.get_closest_marker(marker) and item.config.option.markexpr != marker:
                item.add_marker(pytest.mark.skip(reason=f"{when}: python3 course.py test --{marker}"))
        if isinstance(item, IPyNbCell):
            item.output_timeout = 60   # nbval's own five seconds are too few on a busy machine
            item.add_marker(pytest.mark.notebook)
    items.sort(key=lambda item: 1 if isinstance(item, IPyNbCell) else 2 * (not item.path.stem.startswith(LONGEST)))
