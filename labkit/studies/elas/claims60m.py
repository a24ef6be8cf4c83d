"""What the lab measured beside its study: the paper's 60M configuration, several GPUs, generation."""

import math

import numpy as np

from labkit.studies import published
from labkit.studies.claims import Claim, where
from labkit.studies.elas.gaps import gap
from labkit.studies.elas.records import results, runs_60m
from labkit.traces import TrainTrace

NOTEBOOK = "02_elas_pretraining"
AGAINST = {  # what ELAS is compared with, and what the difference is for
    "lowrank_swiglu": "LORO with its gate (the paper's comparison)",
    "lowrank_relu2": "LORO with ReLU² (the mask alone)",
    "dense_swiglu": "full rank",
}


def describe_60m() -> str:
    """What the mask and leaving out the gate cost; one seed allows no more."""
    gaps = _gaps(_runs())
    mask, both = gaps["lowrank_relu2"], gaps["lowrank_swiglu"]
    return f"the mask costs {mask:+.3f} nats, leaving out the gate {both - mask:+.3f} (1 seed, no interval)"


def headline_60m() -> list[Claim]:
    """The row of the table of findings. FileNotFoundError without the runs."""
    found = _runs()
    about = found["elas_ste"].meta
    conditions = where(about, f"{about['tokens_done'] / 1e9:.2f} billion tokens of code and English")
    ask = "And in the paper's 60M configuration?"
    return [Claim("ELAS", ask, _apart(found), conditions, _printed(), NOTEBOOK)]


def claims_60m() -> list[Claim]:
    """Rows of the table of claims."""
    found = _runs()
    elas = found["elas_ste"].meta
    ours, theirs = (math.exp(found[arm].meta["test_nats"]) for arm in ("elas_ste", "lowrank_swiglu"))
    return [
        Claim(
            "ELAS", "perplexity of ELAS against LORO in the paper's 60M configuration",
            f"{ours:.3f} against {theirs:.3f}; {_apart(found)}",
            "; ".join([where(elas), *elas["differs"]]), _printed(),
        ),
        Claim(
            "ELAS", "speed and memory of a training step in the paper's 60M configuration",
            "; ".join(f"{arm.replace('_', ' ')} {_cost(run)}" for arm, run in found.items()),
            f"{where(elas)}; 512 x 256 tokens a step, compiled, one CUDA graph, mask as a dense tensor",
        ),
    ]  # fmt: skip


def claims_parallel() -> list[Claim]:
    """Rows on several GPUs: the same losses as one, and tokens a second."""
    same, speed = results("parallel-same"), results("parallel-speed")
    names, gpus = {"ddp": "DDP", "fsdp": "FSDP2"}, same["forms"]["ddp"]["processes"]
    apart = ", ".join(
        f"{told} {same['forms'][form]['largest_difference']:.1e}" for form, told in names.items()
    )
    faster = ", ".join(f"{told} {speed['forms'][form]['speedup']:.2f}x" for form, told in names.items())
    run = f"layers of the 60M configuration, ELAS with LORO, {len(same['forms']['one']['losses'])} steps"
    return [
        Claim(
            "ELAS", f"{gpus} GPUs lose what one loses",
            f"largest difference of a step's loss at the same batch: {apart} nats",
            f"{where(same)}; {run}, float64 (float32's rounding flips masks)",
        ),
        Claim(
            "ELAS", f"speed of {gpus} GPUs against one", f"{faster} the tokens a second",
            f"{where(speed)}; {run}, bfloat16, as many rows in each process as in the one, eager",
        ),
    ]  # fmt: skip


def claims_generate() -> list[Claim]:
    """A row a size: tokens a second of ``generate`` by form, and what a static cache is worth."""
    from labkit.studies.elas.generate import BY_DEFAULT  # late: transformers

    how = "bfloat16, random weights; torch.compile, static cache and CUDA graphs unless eager; all in turn"
    rows = []
    for size, record in results("generate").items():
        speed: dict[str, list[float]] = {}
        for row in record["rows"]:
            speed.setdefault(row["form"], []).append(row["tokens_per_second"])
        batches = "/".join(str(batch) for batch in sorted({row["batch"] for row in record["rows"]}))
        told = [f"{form} {'/'.join(f'{v:,.0f}' for v in values)}" for form, values in speed.items()]
        full, loro, slow = (
            _times(speed["ELAS"], speed[n]) for n in ("full-rank SwiGLU", "LORO", BY_DEFAULT)
        )
        told.append(f"ELAS {full} of full rank's, {loro} of LORO's and {slow} its own eager speed")
        ask = f"tokens a second of generate at the {size} shape, batch {batches}"
        rows.append(Claim("ELAS", ask, "; ".join(told), where(record, how)))
    return rows


def _times(ours: list[float], theirs: list[float]) -> str:
    ratios = np.array(ours) / theirs
    return f"{ratios.min():.2f} to {ratios.max():.2f}x"


def _runs() -> dict[str, TrainTrace]:
    if not (found := runs_60m()):
        raise FileNotFoundError("60m-*.json")
    return found


def _gaps(found: dict[str, TrainTrace]) -> dict[str, float]:
    """{arm: test nats per token of ELAS minus its own}, of one seed and the same batches."""
    ours = found["elas_ste"].meta["test_nats"]
    return {arm: ours - found[arm].meta["test_nats"] for arm in AGAINST}


def _apart(found: dict[str, TrainTrace]) -> str:
    """ELAS against each arm, and how far chance alone moves the mask's difference at 12M."""
    parts = [
        f"{AGAINST[arm]} {nats:+.4f} nats ({100 * math.expm1(nats):+.2f} %)"
        for arm, nats in _gaps(found).items()
    ]
    small = gap("elas_ste", "lowrank_relu2")
    scatter = float(np.std(small.values, ddof=1))
    chance = f"at 12M the mask's difference scatters by {scatter:.3f} over {small.count}"
    return f"ELAS minus {'; '.join(parts)}; one seed: not resolved ({chance})"


def _printed() -> str:
    ours, theirs, full = (published.PERPLEXITY[name][0][0] for name in ("ELAS", "LORO", "Full rank"))
    return f"{ours} against {theirs} ({100 * (ours / theirs - 1):+.2f} %), full rank {full}"


def _cost(run: TrainTrace) -> str:
    speed, mfu = run.meta["tokens_per_second"], run.meta["mfu"]
    return f"{speed / 1e6:.2f} M tokens/s, MFU {mfu:.2f}, {run.meta['peak_bytes'] / 2**30:.1f} GiB"
