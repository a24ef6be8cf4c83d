"""Is a compiled kernel right on this machine?  Asked once per specialisation, answered by comparison.

Tests prove a kernel for the cards and compilers they ran on. Here the first use of each specialisation
computes one small random case with the kernel and with its reference; the verdict holds for the process.
A kernel that differs, or does not compile, is reported once and not used. LABKIT_KERNEL_CHECK=0 switches
this off. Each liftable package carries this file, the same in all.
"""

import os
import threading
import warnings
from collections.abc import Callable

import torch

PACKAGE = __name__.partition(".")[0]
_verdicts: dict[tuple, str | None] = {}  # by key: what was observed, None where nothing differed
_lock = threading.RLock()


def ok(
    key: tuple, check: Callable[[], None], *, instead: str = "the reference", strict: bool = False
) -> bool:
    """May this specialisation be used?  After the first call with a ``key`` a dictionary look-up.

    key      (kernel's name, with a dot if it is not of this package, torch.device, all else that selects
             the compiled code)
    check    computes one case both ways, raises AssertionError where the results differ
    instead  what the caller will use, for the warning
    strict   a wrong kernel is a RuntimeError, not False

    Safe from several threads. Out of memory is raised, and asked again at the next call. During a CUDA
    graph capture nothing can be compared: True, and the comparison waits for the next use outside.
    """
    if key not in _verdicts:
        if _switched_off() or capturing(key[1]):
            return True
        with _lock:
            if key not in _verdicts:
                _verdicts[key] = _difference(key[1], check)
                if _verdicts[key] is not None:
                    warnings.warn(f"{_words(key)}; using {instead}", RuntimeWarning, stacklevel=3)
    if _verdicts[key] is None or _switched_off():
        return True
    if strict:
        raise RuntimeError(f"{_words(key)}; LABKIT_KERNEL_CHECK=0 uses it all the same")
    return False


def checked() -> dict[tuple, str | None]:
    """What has been checked in this process: key -> the difference that was observed, None if none."""
    return dict(_verdicts)


def out_of_memory(error: BaseException) -> bool:
    """Does ``error`` say only that memory is short?  Then nothing is broken."""
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error).lower()


def capturing(device: torch.device) -> bool:
    """Is the current stream of ``device`` being captured into a CUDA graph?"""
    if device.type != "cuda":
        return False
    with torch.cuda.device(device):
        return torch.cuda.is_current_stream_capturing()


def _difference(device: torch.device, check: Callable[[], None]) -> str | None:
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # under -W error they would count as a difference
            check()
    except Exception as error:  # a kernel that cannot be compiled is as useless as a wrong one
        if out_of_memory(error):
            raise
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        return kind + " ".join(str(error).split())[:400]
    return None


def _words(key: tuple) -> str:
    import triton

    name, device, *rest = key
    name = name if "." in name else f"{PACKAGE}.{name}"
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    return (
        f"kernel {name} ({', '.join(map(str, rest))}) failed its comparison with the reference "
        f"on {card}, torch {torch.__version__}, Triton {triton.__version__}: {_verdicts[key]}"
    )


def _switched_off() -> bool:
    return os.environ.get("LABKIT_KERNEL_CHECK") == "0"
