"""Shared test set-up: kernels run through Triton's interpreter where there is no GPU."""

import os
import shutil
import sys
from pathlib import Path

# Triton reads this once, at import; torch, trl and the kernels import Triton.
if shutil.which("nvidia-smi") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import matplotlib as mpl
import pytest
import torch


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
    pio = sys.modules.get("plotly.io")  # the kernels' tests also run where plotly is missing
    before = pio and (pio.templates.default, pio.renderers.default)
    with mpl.rc_context():
        yield
    if pio:
        pio.templates.default, pio.renderers.default = before


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
