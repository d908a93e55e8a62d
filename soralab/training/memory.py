"""How much memory this process has taken at most."""

from __future__ import annotations

import sys


def peak_gb() -> float:
    """The most memory that this process has held at one time since it began, in gigabytes (10⁹ bytes)."""
    if sys.platform == "win32":
        import psutil  # comes with ipykernel

        return psutil.Process().memory_info().peak_wset / 1e9
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
