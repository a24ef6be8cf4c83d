"""Shared test set-up: kernels run through Triton's interpreter where there is no GPU."""

import os
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

# Triton reads this once, at import; torch, trl and the kernels import Triton.
if shutil.which("nvidia-smi") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

try:
    import matplotlib as mpl
except ImportError:  # the kernels' tests also run where matplotlib and plotly are missing
    mpl = None

_compiled: dict[str, dict[str, set]] = {}  # by kernel: the values of each thing it was compiled for


@pytest.fixture(scope="session")
def pins():
    """{package: version} of constraints.txt."""
    lines = (Path(__file__).parents[1] / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


@pytest.fixture(autouse=True)
def _one_thread_one_seed():
    """Small tensors on few cores: threads cost more than they give; every test starts at seed 0."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _own_look():
    """What `theme.apply` sets for the whole process ends with the test that called it."""
    pio = sys.modules.get("plotly.io")
    before = pio and (pio.templates.default, pio.renderers.default)
    with mpl.rc_context() if mpl else nullcontext():
        yield
    if pio:
        pio.templates.default, pio.renderers.default = before


def pytest_configure(config):
    """On a GPU, note what Triton compiles, for the summary."""
    if torch.cuda.is_available():
        import triton

        triton.knobs.runtime.jit_post_compile_hook = note_compilation


def note_compilation(*, fn, compile, **_):
    """Triton's hook: ``fn`` was compiled for new types, constants or warps."""
    if fn.module.startswith("mutant"):
        return
    names, signature = fn.jit_function.arg_names, compile["signature"].values()
    chosen = {names[path[0]]: value for path, value in compile["constants"].items()}
    chosen["num_warps"] = compile["num_warps"]
    kernel = _compiled.setdefault(fn.name, {"": set(), "types": set()})
    kernel[""].add(f"{chosen} {list(signature)} {compile['configs']}")
    kernel["types"] |= {kind for kind in signature if kind.startswith(("*", "tensordesc"))}
    for name, value in chosen.items():
        kernel.setdefault(name, set()).add(str(value))


def pytest_sessionfinish(session):
    """A worker of xdist hands what it saw to the process that prints."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["compiled"] = {
            name: {of: sorted(found) for of, found in kernel.items()} for name, kernel in _compiled.items()
        }


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    for name, kernel in getattr(node, "workeroutput", {}).get("compiled", {}).items():
        for of, found in kernel.items():
            _compiled.setdefault(name, {}).setdefault(of, set()).update(found)


def pytest_terminal_summary(terminalreporter):
    if not _compiled:
        return
    terminalreporter.section(f"compiled and run on {torch.cuda.get_device_name()}")
    for name, kernel in sorted(_compiled.items()):
        values = [f"{of} {' '.join(sorted(found))}" for of, found in kernel.items() if of]
        terminalreporter.write_line(f"{name}: {len(kernel[''])} specialisations; {'; '.join(values)}")


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
