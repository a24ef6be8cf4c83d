"""Training logs of other tools as TrainTraces: TRL's and transformers' state, TensorBoard's files.

read_logs   every run under a folder
"""

from pathlib import Path

from labkit import checks
from labkit.reading import read_json
from labkit.traces import TrainTrace

STATE, EVENTS = "trainer_state.json", "events.out.tfevents.*"
KINDS = f"a folder with a .npz trace, {STATE} or TensorBoard's {EVENTS} with scalars"


def read_logs(folder: str | Path) -> dict[str, TrainTrace]:
    """{run: its curves}; a run is a folder, its checkpoints are one run, told by the newest.

    ValueError if the folder has no log, one that is damaged, or event files alone without tensorboard.
    """
    folder = Path(folder)
    newest: dict[Path, list[dict]] = {}
    for path in folder.glob(f"**/{STATE}"):
        run = path.parent
        if run.name.startswith("checkpoint-"):
            run = run.parent
        newest[run] = max(newest.get(run, []), _history(path), key=len)
    if not any(newest.values()):
        newest = {run: _events(run) for run in {path.parent for path in folder.glob(f"**/{EVENTS}")}}
    runs = {_name(run, folder): TrainTrace.from_log(log) for run, log in sorted(newest.items()) if log}
    if not runs:
        checks.fail("TRACE_OR_FOLDER", str(folder), KINDS)
    return runs


def _name(run: Path, folder: Path) -> str:
    inside = run != folder and run.is_relative_to(folder)  # a checkpoint's run is above it
    return str(run.relative_to(folder)) if inside else run.resolve().name


def _history(path: Path) -> list[dict]:
    try:
        log = read_json(path, STATE)["log_history"]
        return [entry for entry in log if isinstance(entry["step"], int)]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{STATE} must hold transformers' log_history; {path} does not: {error}") from None


def _events(run: Path) -> list[dict]:
    """The scalars of a run's event files, as a log_history; what cannot be read in them is left out."""
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.util.tensor_util import make_ndarray
    except ImportError:
        raise ValueError(f"TensorBoard's files in {run} need its reader: pip install tensorboard") from None
    read = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0})
    read.Reload()
    tags = read.Tags()
    found = [(tag, event.step, event.value) for tag in tags["scalars"] for event in read.Scalars(tag)]
    for tag in tags["tensors"]:  # TensorFlow 2, JAX and torch's new style write scalars as tensors
        if read.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
            found += [(tag, one.step, make_ndarray(one.tensor_proto).item()) for one in read.Tensors(tag)]
    return [{"step": step, tag.removeprefix("train/"): value} for tag, step, value in found]
