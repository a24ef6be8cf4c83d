"""Where a notebook computes: its parameter ``device``, settled once for the whole process.

use(device)       settle it, say it in one line, return "cuda" or "cpu"; before anything touches a GPU
current()         what was settled; what "auto" would be where nothing was
resolve(device)   (the card or None, why no card): asks the driver, not torch, so that no memory is held
backend()         what the lab's kernels run on there
model_dtype(d)    bfloat16 on a GPU, as the recorded studies ran, float32 on a CPU
is_main_process() whether this is the first of the processes that torchrun started
"""

import os
import shutil
import subprocess
import threading
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from labkit.checks import choice, fail

if TYPE_CHECKING:
    import torch

LEAST_CAPABILITY = (8, 0)  # the lab's Triton kernels, bfloat16
LEAST_FREE = 2048  # MiB: more than any smoke preset takes
QUERY = "index,uuid,name,compute_cap,memory.free,memory.total"
VARIABLE = "LABKIT_DEVICE"  # what was settled, for this process and those it starts
_shown = os.environ.get("CUDA_VISIBLE_DEVICES")  # as the process found it: ``use`` narrows it


@dataclass(frozen=True)
class Card:
    """A GPU as the driver tells: number among those visible, memory in MiB."""

    number: int
    uuid: str
    name: str
    capability: tuple[int, ...]  # (major, minor)
    free: int
    total: int

    @property
    def problem(self) -> str:
        """Why the lab does not use it; empty if it does."""
        if self.capability < LEAST_CAPABILITY:
            least = ".".join(map(str, LEAST_CAPABILITY))
            have = ".".join(map(str, self.capability))
            return f"cuda:{self.number} ({self.name}) has capability {have}, the lab needs {least}"
        if self.free < LEAST_FREE:
            room = f"{self.free / 1024:.1f} of {self.total / 1024:.0f} GiB free"
            return f"cuda:{self.number} ({self.name}) has {room}, the lab wants {LEAST_FREE / 1024:g}"
        return ""


def cards() -> list[Card]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, in its order; none where torch cannot use one."""
    import torch

    if torch.version.cuda is None or (tool := shutil.which("nvidia-smi")) is None:
        return []
    command = [tool, f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
        found = [[field.strip() for field in line.split(",")] for line in told.splitlines() if line.strip()]
        order = range(len(found)) if _shown is None else _visible(_shown, [(f[0], f[1]) for f in found])
        return [
            Card(number, uuid, name, tuple(map(int, capability.split("."))), int(free), int(total))
            for number, (_, uuid, name, capability, free, total) in enumerate(found[i] for i in order)
        ]
    except (OSError, ValueError, subprocess.SubprocessError):  # no driver, or one that answers otherwise
        return []


def _visible(wanted: str, known: list[tuple[str, str]]) -> list[int]:
    """Places in ``known`` (index, UUID) that CUDA would show: it stops at the first it does not know."""
    places = []
    for name in wanted.split(","):
        place = [i for i, (index, uuid) in enumerate(known) if name.strip() == index or
                 (name.strip() and uuid.startswith(name.strip()))]  # fmt: skip
        if len(place) != 1:
            break
        places += place
    return places


def resolve(device: str = "auto") -> tuple[Card | None, str]:
    """(the card to use or None for the CPU, why a GPU that is there is not used).

    device  "auto": the first GPU that is new and free enough, else the CPU; "cpu"; "cuda": such a GPU;
            "cuda:N": that one, numbered as nvidia-smi does among those visible

    ValueError for another word, and where a GPU is asked for by name and none will do.
    """
    kind, _, number = device.partition(":") if isinstance(device, str) else ("", "", "")
    if kind not in ("auto", "cpu", "cuda") or (
        ":" in str(device) and not (kind == "cuda" and number.isdigit())
    ):
        fail("device", device, "auto, cpu, cuda or cuda:N")
    if kind == "cpu":
        return None, ""
    known = cards()
    asked = [card for card in known if not number or card.number == int(number)]
    usable = next((card for card in asked if not card.problem), None)
    problems = "; ".join(card.problem for card in asked if card.problem)
    if usable is None and kind == "cuda":
        problems = problems or f"torch and the driver show {len(known)} GPUs here"
        fail("device", device, f"auto or cpu, or a GPU that can be used ({problems})")
    return usable, "" if usable else problems


def use(device: str = "auto") -> str:
    """Settle where this process computes, say so in one line; "cuda" or "cpu".

    On a GPU the process is shown that one card alone, so that trainers do not spread over the others.
    RuntimeError if it has already computed on another one; ValueError as ``resolve``.
    """
    import torch

    used = torch.cuda.get_device_properties(0) if torch.cuda.is_initialized() else None
    card, problem = resolve(device) if used is None or device == "cpu" else (_of(used, device), "")
    if card is None:
        os.environ[VARIABLE] = "cpu"
        told = f"device: cpu, {torch.get_num_threads()} thread(s)", problem, backend()
        print("; ".join(filter(None, told)))
        return "cpu"
    os.environ |= {"CUDA_VISIBLE_DEVICES": card.uuid, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", VARIABLE: "cuda"}
    free = f"{card.free / 1024:.0f} of {card.total / 1024:.0f} GiB free"
    print(f"device: cuda, {card.name}, {free}; {backend()}")
    return "cuda"


def _of(used, device: str) -> Card:
    """The card this process has computed on, however full it has made it."""
    number = device.partition(":")[2]
    for card in cards():
        if card.uuid == f"GPU-{used.uuid}" and number in ("", str(card.number)):
            return card
    raise RuntimeError(f"device {device!r} is not the GPU that this kernel has used: restart the kernel")


def class_of(device: str = "auto") -> str:
    """ "cuda" or "cpu": where a notebook with this parameter computes; ValueError as ``resolve``."""
    if device == "auto":
        return current()
    return "cpu" if resolve(device)[0] is None else "cuda"


def current() -> str:
    """ "cuda" or "cpu": what ``use`` settled, here or in a parent process; else what "auto" is."""
    import torch

    if settled := os.environ.get(VARIABLE):
        # pip's torch on a machine without a card is a CUDA build, too
        there = ("cpu", "cuda") if torch.version.cuda and torch.cuda.device_count() else ("cpu",)
        return choice(f"${VARIABLE}", settled, there)
    return "cuda" if torch.cuda.is_initialized() or automatic() else "cpu"


@cache
def automatic() -> Card | None:
    """What "auto" resolves to, asked once."""
    return resolve()[0]


def of_torch(device: "str | torch.device") -> "torch.device":
    """torch's device of that name; ValueError unless there is such a one here."""
    import torch

    try:
        if isinstance(device, str | torch.device):
            return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError):  # no such name, or a torch without that kind
        pass
    fail("device", device, "a torch.device or its name, and there")


def backend() -> str:
    """What the lab's kernels run on under ``backend="auto"``, and how it was switched."""
    if current() == "cpu" or find_spec("triton") is None:
        return "plain torch"
    reference = os.environ.get("LABKIT_KERNEL") == "reference"
    return "plain torch (LABKIT_KERNEL=reference)" if reference else "Triton kernels"


def model_dtype(device: str):
    """torch.bfloat16 on a GPU, as the recorded studies of shipped models ran; torch.float32 on a CPU."""
    import torch

    return torch.bfloat16 if device == "cuda" else torch.float32


class Memory:
    """While open, asks the driver every second; ``most``: MiB in use on the visible GPUs, 0 without."""

    def __init__(self) -> None:
        self.most, self._end = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while found := cards():
            self.most = max(self.most, sum(card.total - card.free for card in found))
            if self._end.wait(1.0):
                return

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()


def is_main_process() -> bool:
    """True unless torchrun or accelerate started this process as another than the first."""
    return int(os.environ.get("RANK", 0)) == 0
