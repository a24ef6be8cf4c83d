"""Who made this number: versions, device, git commit, seed and time, as one JSON-able dict."""

import datetime
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from labkit import device
from labkit.paths import ROOT


@cache
def versions() -> dict[str, str]:
    """Installed versions of the packages that can move a number (absent ones are left out)."""
    found = {"python": platform.python_version()}
    for name in ("labkit", "torch", "triton", "transformers", "trl", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def commit() -> str:
    """Short git commit of the checkout, with ``+`` when files differ from it; ``unknown`` without one."""
    if ROOT is None:  # installed: a repository around site-packages is another project's
        return "unknown"
    git = ["git", "-C", str(ROOT), "describe", "--always", "--exclude=*", "--dirty=+"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def device_name(kind: str | None = None) -> str:
    """Name of the card if ``kind`` is "cuda", of the processor if "cpu"; None: of what is used here."""
    import torch  # late: figures and the runner need no torch

    if (kind or device.current()) == "cpu":
        return f"CPU ({platform.machine()}, {torch.get_num_threads()} thread(s))"
    card = None if torch.cuda.is_initialized() else device.automatic()  # asking torch would hold memory
    return card.name if card else torch.cuda.get_device_name()


def kernel_threads() -> str:
    """Threads a notebook's kernel computes with: $OMP_NUM_THREADS, else one, as for the baselines.

    They set the order in which floats are summed, and a training carries the difference on.
    """
    return os.environ.get("OMP_NUM_THREADS") or "1"


def setting(kind: str) -> dict[str, str]:
    """What can move a metric of the same code and parameters on a ``kind`` of device, "cuda" or "cpu"."""
    import torch

    processor = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "torch": torch.__version__,  # with its build, as in 2.13.0+cpu
        **{name: number for name, number in versions().items() if name in ("transformers", "numpy")},
        "processor": device_name(kind) if kind == "cuda" else processor,
        "threads": kernel_threads(),
    }


def provenance(**extra: object) -> dict:
    """Versions, device, commit and UTC time, plus whatever the caller adds (seed=..., command=...)."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {
        "versions": versions(),
        "device": device_name(),
        "commit": commit(),
        "time": now,
        **extra,
    }
