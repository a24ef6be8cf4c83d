"""pretrain(config) -> TrainTrace: one small, paired, resumable pre-training run on real text.

The loop is transformers' Trainer (in trainer.py, loaded on first use), the optimiser is Loro, the text is
data.py's; config.py says how a run is set up.
"""

import dataclasses
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.checks import choice, fail
from labkit.device import is_main_process
from labkit.elas.config import PretrainConfig, build_model, read_text
from labkit.paths import write_json
from labkit.progress import Progress
from labkit.traces import TrainTrace

if TYPE_CHECKING:
    from labkit.elas.data import Text
    from labkit.elas.model import ElasForCausalLM


def pretrain(
    config: PretrainConfig | None = None,
    *,
    model: "ElasForCausalLM | None" = None,
    output_dir: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    progress: Progress = True,
) -> TrainTrace:
    """Train one arm and return its curves.

    Args:
        config: which arm, on which text, how; default: ``PretrainConfig()``.
        model: trained in place, to look at it afterwards; default: ``build_model(config)``.
        output_dir: checkpoints and the finished model with its tokenizer ("model/", which
            AutoModelForCausalLM and pipeline open) go here; None keeps no files.
        resume: go on from the last checkpoint in ``output_dir``; the curve is that of an unbroken run, and
            a finished one is loaded as it is.
        device: "auto": where transformers' Trainer puts it, a GPU if there is one; "cpu"; "cuda".
        progress: show a bar, or a function called as progress(steps done, steps); it may raise to stop.

    Returns:
        A trace with the series loss, learning_rate, grad_norm; eval_nats, eval_bits_per_byte
        (token-weighted, from step 0 on); mask_on; and for ReLU² arms natural_zeros, crowded_groups,
        energy_kept, gradient_cosine, gradient_norm_ratio (straight-through against masked), each
        (n, layers). ``meta`` holds the configuration, parameter count, unigram baseline, the final
        evaluation, findings (see ``Loro.findings``; also the first loss that is not finite), seconds,
        tokens a second, peak memory (CUDA) and provenance.

    Raises:
        ValueError: names the argument at fault.
    """
    config = PretrainConfig() if config is None else config
    if not isinstance(config, PretrainConfig):
        fail("config", config, "a PretrainConfig")
    choice("device", device, ("auto", "cpu", "cuda"))
    if output_dir is None and (resume or config.save_every):
        fail("output_dir", None, "a folder where checkpoints are saved or resumed from")
    text = read_text(config)
    _check_rows(config, text)
    if model is None:
        model = build_model(config, text)
    from labkit.elas.trainer import run

    if output_dir is None:
        with tempfile.TemporaryDirectory(prefix="labkit-elas-") as scratch:
            return run(config, model, text, Path(scratch), resume=False, device=device, progress=progress)
    folder = Path(output_dir)
    if is_main_process():  # one process claims the folder, the others may come first
        _claim(folder / "pretrain.json", config, resume)
    trace = run(config, model, text, folder, resume=resume, device=device, progress=progress)
    if is_main_process():
        from labkit.elas.checkpoints import save_model

        save_model(folder / "model", model, text.tokenizer)
        trace.save(folder / "trace.npz")
    return trace


def _check_rows(config: PretrainConfig, text: "Text") -> None:
    """ValueError unless the training text fills one batch of every process: a part of one is dropped."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    most = (len(text.train) - 1) // config.seq_len // processes
    if config.batch_size > most:
        words = f"at most {most} rows: the training text of max_bytes={config.max_bytes} has no more"
        fail("batch_size", config.batch_size, words + " for each process" * (processes > 1))


def _claim(path: Path, config: PretrainConfig, resume: bool) -> None:
    """Write the folder's configuration, or on resume insist that it is the one being resumed."""
    from labkit.causal_lm import changed, checkpoints

    mine = json.loads(json.dumps(dataclasses.asdict(config)))
    if resume and path.exists():
        if others := changed(path, mine, "output_dir"):
            allowed = f"that of {path.parent}, which differs in {', '.join(others)}"
            fail("config", {name: mine[name] for name in others}, allowed)
        return
    # of another program's run: they would be cleared away
    if not resume and not path.exists() and (found := checkpoints(path.parent)):
        fail("output_dir", str(path.parent), f"new, empty or of an earlier run: it holds {found[0].name}")
    write_json(path, mine)
