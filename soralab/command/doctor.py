"""`soralab doctor`: what is here, whether it works, and what to do about what does not."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata

from soralab.command.arguments import verb

PACKAGES = ("torch", "torchvision", "numpy", "einops", "matplotlib", "jupyterlab", "nbval", "safetensors", "scipy")
SHIPPED = ("sora", "sora_autoencoder", "sora_pixels")


def declare(verbs):
    """It has no arguments; returns its parser."""
    return verb(verbs, "doctor", "print versions, device, profile and checkpoints, and what to do about each problem")


def run(options) -> int:
    """Print the report; returns 2 if something needs mending."""
    text, healthy = report()
    print(text)
    return 0 if healthy else 2


def report() -> tuple[str, bool]:
    """The whole report as text, and whether nothing needs mending."""
    lines, problems = [f"{'python':22s}{platform.python_version()} on {platform.system()} {platform.machine()}"], []
    for check in (_packages, _machine, _checkpoints):
        found, wrong = check()
        lines += found
        problems += wrong
    lines.append("")
    lines += [f"MEND  {problem}" for problem in problems] or ["all is well"]
    return "\n".join(lines), not problems


def _packages() -> tuple[list[str], list[str]]:
    lines, problems = [], []
    for name in PACKAGES:
        try:
            lines.append(f"{name:22s}{metadata.version(name)}")
        except metadata.PackageNotFoundError:
            lines.append(f"{name:22s}missing")
            problems.append(f"{name} is missing: run `python3 course.py lab`, which installs it")
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        problems.append(
            f"torchvision does not import ({reason}): torch and torchvision must come from one index; reinstall both "
            "with `pip install --force-reinstall torch torchvision`"
        )
    return lines, problems


def _machine() -> tuple[list[str], list[str]]:
    from soralab.training.profiles import device, hardware, profile

    problems, here = [], hardware()
    try:
        chosen, which = str(device()), profile()
    except ValueError as error:
        chosen, which = "?", os.environ.get("SORALAB_PROFILE", "laptop")
        problems.append(str(error))
    free = shutil.disk_usage(".").free / 1e9
    if free < 1:
        problems.append(f"the disk has {free:.1f} GB free: make room for checkpoints and films")
    lines = [f"{'device':22s}{chosen}", f"{'processor':22s}{here['cpu']}, {here['cores']} cores",
             f"{'profile':22s}{which} (SORALAB_PROFILE)", f"{'free disk':22s}{free:.0f} GB"]  # fmt: skip
    return lines, problems


def _checkpoints() -> tuple[list[str], list[str]]:
    from soralab.files.checkpoints import checkpoints_folder, list_checkpoints

    lines, problems, found = [], [], list_checkpoints()
    for entry in found:
        state = "verified" if entry["verified"] else "NOT verified"
        size = f"{entry['parameters'] / 1e6:.1f} M parameters, {entry['bytes'] / 1e6:.1f} MB"
        lines.append(f"{entry['name']:22s}{size}, {state}")
        if entry["problem"]:
            problems.append(entry["problem"])
    for name in SHIPPED:
        if name not in {entry["name"] for entry in found}:
            problems.append(f"the checkpoint {name} is not in {checkpoints_folder()}: `git checkout data/checkpoints`")
    return lines, problems


