"""The course's notebooks as files: what changes with every run or every opening and tells a reader nothing goes.

`clean` is called when notebooks are executed, and, as `on_save`, whenever JupyterLab writes one: so a notebook that was
only opened stays the tracked file, byte for byte.
"""

from __future__ import annotations

import re

OURS = re.compile(r"(?:^|/)\d\d_\w+\.ipynb$")
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}  # as JupyterLab writes it
WIDGET = "application/vnd.jupyter.widget-view+json"


def clean(nb: dict) -> None:
    """Remove from a notebook (its JSON, or nbformat's) versions, timestamps, and widgets, which live no longer than
    their kernel: saved, a progress bar comes back dead."""
    metadata = nb["metadata"]
    metadata.pop("widgets", None)
    if metadata.get("kernelspec", {}).get("name", "python3") == "python3":
        metadata["kernelspec"] = dict(KERNEL)
    metadata.get("language_info", {}).pop("version", None)
    for cell in nb["cells"]:
        for key in ("execution", "ExecuteTime", "collapsed", "scrolled"):
            cell["metadata"].pop(key, None)
        if "outputs" in cell:
            cell["outputs"] = _joined([output for output in cell["outputs"] if WIDGET not in output.get("data", {})])


def _joined(outputs: list[dict]) -> list[dict]:
    """The outputs with what was printed in several pieces in one, as JupyterLab shows and saves it."""
    kept: list[dict] = []
    for output in outputs:
        last = kept[-1] if kept else {}
        if output["output_type"] == "stream" and last.get("name") == output["name"]:
            last["text"] = "".join(last["text"]) + "".join(output["text"])
        else:
            kept.append(output)
    return kept


def on_save(model: dict, path: str = "", **_) -> None:
    """Clean a chapter's notebook that JupyterLab is about to write; leave every other file as it is.

    model: Jupyter's: {"type": "notebook", "content": the notebook's JSON}. path: from the server's root.
    """
    if model.get("type") == "notebook" and model.get("content") and OURS.search(path):
        clean(model["content"])


# What Jupyter's server looks for; soralab/files/jupyter.json, installed with the package, tells it of this module.


def _jupyter_server_extension_points() -> list[dict]:
    return [{"module": "soralab.files.notebooks"}]


def _load_jupyter_server_extension(server) -> None:
    server.contents_manager.register_pre_save_hook(on_save)
