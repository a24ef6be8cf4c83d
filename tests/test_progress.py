"""The progress argument: a bar, silence, or a function that is told and can stop real training."""

from pathlib import Path

import pytest

import labkit
from labkit.elas import PretrainConfig, pretrain
from labkit.fgo.lab.live import reinforce
from labkit.fgo.lab.reasoner import build_char_model
from labkit.progress import Stopped, bar

SMALL = {
    "num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2,
    "rank": 8, "intermediate_size": 64,
}  # fmt: skip


class Listener:
    """Notes what it is told and stops after ``last`` steps."""

    def __init__(self, last=None):
        self.heard, self.last = [], last

    def __call__(self, done, total):
        self.heard.append((done, total))
        if done == self.last:
            raise Stopped


def test_a_function_hears_every_step():
    listener = Listener()
    assert list(bar(listener, "abc")) == ["a", "b", "c"]
    with bar(listener, total=4, initial=1) as told:
        told.update(3)
    assert listener.heard == [(1, 3), (2, 3), (3, 3), (4, 4)]


def test_no_bar_is_silent_and_a_bar_shows_its_name(capsys):
    assert list(bar(False, range(2), desc="hidden")) == [0, 1]
    assert capsys.readouterr().err == ""
    assert list(bar(True, range(2), desc="seen")) == [0, 1]
    assert "seen" in capsys.readouterr().err


def test_every_bar_that_a_notebook_may_show_is_drawn_here():
    package = Path(labkit.__file__).parent
    texts = {str(path.relative_to(package)): path.read_text() for path in package.rglob("*.py")}
    found = {name for name, text in texts.items() if "from tqdm" in text or "import tqdm" in text}
    assert found == {"progress.py", "soar/harness_work.py"}  # the second is that of a command


def test_pretrain_stops_at_the_step_where_the_function_raises(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    config = PretrainConfig(
        model=SMALL, vocab_size=300, max_bytes=60_000, seq_len=16, batch_size=2, steps=6,
        lr_warmup=1, dense_steps=2, eval_every=6, eval_tokens=64,
    )  # fmt: skip
    listener = Listener(last=2)
    with pytest.raises(Stopped):
        pretrain(config, progress=listener)
    assert listener.heard == [(0, 6), (1, 6), (2, 6)]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_reinforce_stops_at_the_step_where_the_function_raises():
    listener = Listener(last=1)
    model = build_char_model(hidden=16, layers=1, heads=2)
    with pytest.raises(Stopped):
        reinforce(model, "fgo", steps=3, questions=2, group=2, max_tokens=6, progress=listener)
    assert listener.heard == [(0, 3), (1, 3)]
