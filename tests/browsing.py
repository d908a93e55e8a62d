"""JupyterLab with the course's notebooks, and a Chromium that opens them: what test_browser.py drives.

The server gets a copy of the notebooks and folders of its own for everything that it writes, so that neither the
checkout nor the caller's Jupyter is touched; it answers on this machine's own address only, to a token.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SWITCHES = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--no-first-run"]  # fmt: skip
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},  # as course.py sets it
    "notebook-extension/tracker": {"windowingMode": "none"},  # cells far down are on the page as well
}
PATIENCE = 120  # seconds for what a busy machine may be slow at


def await_answer(address: str, process: subprocess.Popen, log: Path) -> None:
    """Wait until the server answers. Raises RuntimeError with its log where it ended or stays silent."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(address, timeout=5)
            return
        time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text(errors='replace')[-3000:]}")


@contextlib.contextmanager
def jupyterlab(folder: Path) -> Iterator[tuple[str, Path]]:
    """A server on a copy of the notebooks in `folder`: yields its address, to which a page's name and the token are
    to be added as `address.format(name)`, and the copy."""
    work, settings = folder / "notebooks", folder / "settings"
    shutil.copytree(ROOT / "notebooks", work, ignore=shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__"))
    for name, value in SETTINGS.items():
        path = settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    own = {name: str(folder / name.lower()) for name in (
        "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "JUPYTERLAB_WORKSPACES_DIR")}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]  # this clone's soralab, wherever it is installed
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token, log = secrets.token_hex(16), folder / "lab.log"
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
               "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={work}",
               "--expose-app-in-browser"]  # fmt: skip
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    env = {**os.environ, **own, "JUPYTERLAB_SETTINGS_DIR": str(settings), "PYTHONPATH": os.pathsep.join(paths),
           "JUPYTER_PREFER_ENV_PATH": "1"}  # fmt: skip
    with open(log, "w") as file:
        process = subprocess.Popen(command, env=env, stdout=file, stderr=subprocess.STDOUT)
    try:
        await_answer(f"http://127.0.0.1:{port}/api?token={token}", process, log)
        yield f"http://127.0.0.1:{port}/lab/tree/{{}}?token={token}&reset", work
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# ------------------------------------------------------------------------------------------------ a page in JupyterLab

OPENED = "name => jupyterapp?.shell.currentWidget?.context?.path === name && jupyterapp.shell.currentWidget.isRevealed"
RENDERED = """() => {
  const { content } = jupyterapp.shell.currentWidget, cells = [...content.node.querySelectorAll(".jp-Cell")];
  return cells.length === content.model.cells.length && cells.every((cell) =>
    !cell.matches(".jp-MarkdownCell") || cell.querySelector(".jp-MarkdownOutput")?.childElementCount);
}"""
CLOSE = """async () => {
  const panel = jupyterapp.shell.currentWidget;
  await panel.sessionContext.shutdown();
  panel.context.model.dirty = false;
  panel.dispose();
}"""
IDLE = """() => {
  const session = jupyterapp.shell.currentWidget.sessionContext;
  return session.isReady && session.session?.kernel?.status === "idle";
}"""
# Count the kernel's answers, from now on.
LISTEN = """() => {
  const { kernel } = jupyterapp.shell.currentWidget.sessionContext.session;
  if (window.heard !== kernel) kernel.anyMessage.connect((_, { msg, direction }) => {
    if (direction === "recv" && msg.header.msg_type === "execute_reply") window.replies++;
  });
  Object.assign(window, { heard: kernel, replies: 0 });
}"""
# Of each cell what the page's model holds and what a reader sees of it.
CELLS = """() => {
  const { model, widgets } = jupyterapp.shell.currentWidget.content;
  const seen = (node) => Boolean(node && node.offsetParent && node.getBoundingClientRect().height > 4);
  return widgets.map((widget, k) => {
    const cell = model.cells.get(k), node = widget.node, folds = [...node.querySelectorAll("details")];
    return {
      id: cell.id, kind: cell.type, source: cell.sharedModel.getSource(), tags: cell.getMetadata("tags") ?? [],
      count: cell.executionCount, outputs: cell.outputs?.toJSON() ?? [],
      editor: seen(node.querySelector(".jp-InputArea-editor .cm-content")),
      code: [...node.querySelectorAll(".jp-MarkdownOutput pre")].some((pre) => pre.checkVisibility()),
      folds: folds.map((fold) => fold.open),
      pictures: [...node.querySelectorAll("img")].map((image) => [image.alt, image.naturalWidth]),
    };
  });
}"""


class Notebook:
    """A notebook in JupyterLab, used by mouse and keyboard. errors: what its scripts stumbled over; asked: what it
    wanted from other machines than this one."""

    def __init__(self, page, address: str, name: str):
        """Open it in `page`, which is empty or shows JupyterLab already: that takes seconds to load."""
        self.page, self.name = page, name
        self.errors: list[str] = []
        self.asked: list[str] = []
        page.on("pageerror", self._stumbled)
        page.on("request", self._requested)
        if page.url == "about:blank":
            page.goto(address.format(name))
            page.wait_for_function("() => window.jupyterapp")
        else:
            page.evaluate("path => void jupyterapp.commands.execute('docmanager:open', { path })", name)
        self._await_cells()

    def _stumbled(self, error) -> None:
        self.errors.append(str(error))

    def _requested(self, request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            self.asked.append(request.url)

    def _await_cells(self) -> None:
        self.page.wait_for_function(OPENED, arg=self.name)
        self.page.wait_for_function(RENDERED)

    def reload(self) -> None:
        """Read it from the disk again."""
        self.page.evaluate("() => jupyterapp.shell.currentWidget.context.revert()")
        self._await_cells()

    def close(self) -> None:
        """Close it and its kernel; what was typed is lost. It is closed once its kernel is there: JupyterLab's widgets
        wait for that, and stumble over a notebook that is gone then."""
        self.page.wait_for_function(IDLE)
        self.page.evaluate(CLOSE)
        self.page.locator(".jp-Notebook").wait_for(state="detached")
        self.page.remove_listener("pageerror", self._stumbled)
        self.page.remove_listener("request", self._requested)

    def cells(self) -> list[dict]:
        """All cells, as CELLS says."""
        return self.page.evaluate(CELLS)

    def number(self, start: str) -> int:
        """The place of the first cell that has this id, or whose source begins so."""
        return next(k for k, cell in enumerate(self.cells()) if cell["id"] == start or cell["source"].startswith(start))

    def cell(self, number: int):
        """A cell on the page."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(number)

    def texts(self, number: int) -> str:
        """What a cell printed, and its error's lines."""
        outputs = self.cells()[number]["outputs"]
        pieces = [output.get("text") or "\n".join(output.get("traceback", ())) for output in outputs]
        return "".join("".join(piece) for piece in pieces)

    # ------------------------------------------------------------------------------------------- what a reader does

    def type(self, number: int, text: str, line: str) -> None:
        """Type over the line of a cell's code that holds `line`; its indentation stays."""
        self.cell(number).locator(".cm-content .cm-line", has_text=line).click()
        self.page.keyboard.press("Home")
        self.page.keyboard.press("Shift+End")
        self.page.keyboard.insert_text(text)
        if text not in self.cells()[number]["source"]:
            raise RuntimeError(f"typed {text!r}, and the cell holds {self.cells()[number]['source']!r}")

    def run(self, number: int) -> None:
        """Run one cell by Shift + Enter, and wait for its end."""
        self._listen()
        self.cell(number).locator(".cm-content").first.click()
        self.page.keyboard.press("Shift+Enter")
        self._await_replies(1)

    def run_all(self) -> None:
        """Run all cells by the menu, and wait for their end."""
        self._listen()
        self.page.locator(".lm-MenuBar-itemLabel").get_by_text("Run", exact=True).click()
        self.page.locator(".lm-Menu-itemLabel").get_by_text("Run All Cells", exact=True).click()
        self._await_replies(sum(cell["kind"] == "code" and bool(cell["source"].strip()) for cell in self.cells()))

    def _listen(self) -> None:
        self.page.wait_for_function(IDLE)
        self.page.evaluate(LISTEN)

    def _await_replies(self, count: int) -> None:
        """Wait until the kernel has answered for so many cells, and the page has taken it in."""
        self.page.wait_for_function("count => window.replies >= count", arg=count, timeout=5000 * PATIENCE)
        star = self.page.locator(".jp-Notebook .jp-InputPrompt").filter(has_text="[*]")
        while star.count():
            self.page.wait_for_timeout(50)

    def trust(self) -> None:
        """Trust the notebook, as the command of that name does after a question: scripts in its outputs may run."""
        self.page.evaluate("() => void jupyterapp.commands.execute('notebook:trust')")
        self.page.locator(".jp-Dialog").get_by_role("button", name="Trust").click()
        self.page.locator(".jp-Dialog").wait_for(state="detached")


# ----------------------------------------------------------------------------- what a reader must find; what is wrong


def failures(notebook: Notebook) -> Iterator[str]:
    """Errors and warnings of cells and of the page's scripts, cells that did not run, and calls of the network."""
    for number, cell in enumerate(notebook.cells()):
        if cell["kind"] == "code":
            if cell["count"] is None and "skip-execution" not in cell["tags"]:
                yield f"cell {number} did not run"
            for output in cell["outputs"]:
                if output["output_type"] == "error" and "raises-exception" not in cell["tags"]:
                    yield f"cell {number}: {output['ename']}: {output['evalue']}"
                if output.get("name") == "stderr":
                    yield f"cell {number}: {output['text']}"
    yield from (f"script: {error}" for error in notebook.errors)
    yield from (f"asks the network for {url}" for url in notebook.asked)


def silent(notebook: Notebook) -> Iterator[str]:
    """Pictures that do not say what they show, or that are not shown."""
    count = 0
    for number, cell in enumerate(notebook.cells()):
        for alt, width in cell["pictures"]:
            count += 1
            if len(alt.split()) < 2:
                yield f"cell {number}: a picture without words: {alt!r}"
            if not width:
                yield f"cell {number}: a picture that the browser cannot read: {alt}"
    if not count:
        yield "there is no picture"


def unfolded(notebook: Notebook) -> Iterator[str]:
    """Code that only draws and solutions, where they lie open; other code, where it does not."""
    for number, cell in enumerate(notebook.cells()):
        if cell["kind"] == "code":
            drawing = "hide-input" in cell["tags"]
            if cell["editor"] is drawing:
                yield f"cell {number}: its code is {'not folded' if drawing else 'folded'}"
        elif "solution" in cell["tags"] and (not cell["folds"] or any(cell["folds"]) or cell["code"]):
            yield f"cell {number}: its solution is not folded"


def stands_still(notebook: Notebook, film, seconds: float = 10) -> Iterator[str]:
    """That a film, an image on the page, looks the same all the time."""
    film.scroll_into_view_if_needed()
    clip, end = film.bounding_box(), time.monotonic() + seconds
    seen = {notebook.page.screenshot(clip=clip)}
    while len(seen) < 2 and time.monotonic() < end:
        seen.add(notebook.page.screenshot(clip=clip))
    if len(seen) < 2:
        yield f"does not play: {film.get_attribute('alt')}"


def stuck(notebook: Notebook, figure) -> Iterator[str]:
    """What is wrong with a figure with sliders, an element on the page: each slider is moved by the keyboard from one
    end to the other, and by the mouse to its end; at each place there must be another picture and another word."""
    sliders, said, view = figure.locator("input[type=range]"), figure.locator("output"), figure.locator("img")
    if not sliders.count():
        yield "there is no slider"
        return
    figure.scroll_into_view_if_needed()
    for number in range(sliders.count()):
        slider = sliders.nth(number)
        values, seen = 1 + int(slider.get_attribute("max")), {}
        slider.focus()
        notebook.page.keyboard.press("Home")
        for _ in range(values):
            clip = view.locator("..").bounding_box()
            seen[said.inner_text()] = notebook.page.screenshot(clip=clip)
            notebook.page.keyboard.press("ArrowRight")
        if len(seen) < values:
            yield f"slider {number}: {values} values, but {len(seen)} texts"
        if len(set(seen.values())) < values:
            yield f"slider {number}: {values} values, but {len(set(seen.values()))} pictures"
        notebook.page.keyboard.press("Home")
        box = slider.bounding_box()
        notebook.page.mouse.click(box["x"] + box["width"] - 3, box["y"] + box["height"] / 2)
        if said.inner_text() != list(seen)[-1]:
            yield f"slider {number}: the mouse moves it to {said.inner_text()!r}"
