"""`soralab doctor`: what is here, whether it works, and what to do about what does not."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from importlib import metadata

from soralab.command.arguments import verb

# What is compiled may be there and yet not import: each of these is tried.
COMPILED = {"torch": "torch", "torchvision": "torchvision", "numpy": "numpy", "scipy": "scipy.ndimage",
            "pillow": "PIL.Image", "av": "av", "safetensors": "safetensors.torch"}  # fmt: skip


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
    """Every package that the course names, held against its floor, and whether the compiled ones import."""
    from packaging.requirements import Requirement

    lines, problems = [], []
    for need in map(Requirement, requirements()):
        try:
            version = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            lines.append(f"{need.name:22s}missing")
            problems.append(f"{need.name} is missing: run `python3 course.py lab`, which installs it")
            continue
        lines.append(f"{need.name:22s}{version}")
        if not need.specifier.contains(version, prereleases=True):
            problems.append(f"{need.name} is {version}, it takes {need.specifier}: `pip install '{need}'`")
        reason = _failure(COMPILED.get(need.name))
        if reason and need.name == "torchvision":
            problems.append(
                f"torchvision does not import ({reason}): torch and torchvision must come from one index; reinstall "
                "both with `pip install --force-reinstall torch torchvision`"
            )
        elif reason:
            problems.append(f"{need.name} does not import ({reason}): `pip install --force-reinstall '{need}'`")
    return lines, problems


def requirements() -> list[str]:
    """The packages that the course needs, with their floors, as its installation names them; no extras."""
    try:
        return [line for line in metadata.requires("soralab") or [] if "extra ==" not in line]
    except metadata.PackageNotFoundError:
        return ["soralab"]


def _failure(module: str | None) -> str:
    """Why a module does not import, in one line; "" if it does."""
    try:
        if module:
            importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        return (str(error) or type(error).__name__).splitlines()[0]
    return ""


def _machine() -> tuple[list[str], list[str]]:
    from soralab.training.profiles import cores, device, gpu_name, processor, profile

    problems = []
    try:
        where, which = device(), profile()
        chosen = f"{where}, {gpu_name(where)}" if gpu_name(where) else str(where)
    except ValueError as error:
        chosen, which = "?", os.environ.get("SORALAB_PROFILE", "laptop")
        problems.append(str(error))
    free = shutil.disk_usage(".").free / 1e9
    if free < 1:
        problems.append(f"the disk has {free:.1f} GB free: make room for checkpoints and films")
    lines = [f"{'device':22s}{chosen} (SORALAB_DEVICE)", f"{'processor':22s}{processor()}, {cores()} cores",
             f"{'profile':22s}{which} (SORALAB_PROFILE)", f"{'free disk':22s}{free:.0f} GB"]  # fmt: skip
    return lines, problems


def _checkpoints() -> tuple[list[str], list[str]]:
    from soralab.files.checkpoints import (
        BEGUN,
        CHECKPOINTS,
        SHIPPED,
        checkpoint_paths,
        checkpoints_folder,
        default_mend,
        list_checkpoints,
    )

    lines, problems, found = [], [], list_checkpoints()
    begun = list_checkpoints(BEGUN) if checkpoints_folder() == CHECKPOINTS else []
    for entry in (*found, *begun):
        state = ("" if entry["verified"] else "NOT ") + "verified" + (", in training" if entry in begun else "")
        size = f"{entry['parameters'] / 1e6:.1f} M parameters, {entry['bytes'] / 1e6:.1f} MB"
        lines.append(f"{entry['name']:22s}{size}, {state}")
        if entry["problem"]:
            problems.append(entry["problem"])
    for name in SHIPPED:
        if name not in {entry["name"] for entry in found}:
            mend = default_mend(checkpoint_paths(name)[0])
            problems.append(f"the checkpoint {name} is not in {checkpoints_folder()}: {mend}")
    return lines, problems


