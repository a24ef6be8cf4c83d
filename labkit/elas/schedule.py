"""LORO's learning-rate schedule: warm-up, late cosine, a ramp after every restart."""

import math

ALMOST_ZERO = 1e-6  # where LORO's ramp after a restart begins


def cosine_restart(
    step: int, *, total: int, warmup: int, every: int | None, rewarm: int = 5, floor: float = 0.1
) -> float:
    """LORO's factor on the learning rate at ``step`` (from 0): warm-up, late cosine, a ramp per restart.

    With W = ``warmup``, s = W (``lr_adjust_steps = -W`` in LORO's runs) and c(x) = (1 + cos(pi x)) / 2:

        t < W     floor + (c(s / (total - W)) - floor) t / W
        t >= W    floor + (1 - floor) c((t - W - s) / (total - W)), highest at t = 2W

    The ``rewarm`` steps after an exact one, t = every, 2 every, ..., climb from 1e-6 to this curve's
    value at the first of them, also inside the warm-up; at t = W, where the cosine begins, LORO has no
    ramp. The ramp is shorter where ``every`` is as short, so that the last step of a period is on the
    curve (none for every=1). Source: ``cosine_restart`` of LORO's code, equal to it where W is a
    multiple of ``every``. Runs shorter than 3W, which LORO has not, peak half-way from W to the end.
    """
    after = max(1, total - warmup)
    shift = min(warmup, max(0, total - warmup) / 2)

    def cosine(progress: float) -> float:
        return (1 + math.cos(math.pi * min(1.0, progress))) / 2

    def curve(t: int) -> float:
        if t < warmup:
            return floor + (cosine(shift / after) - floor) * t / warmup
        return floor + (1 - floor) * cosine((t - warmup - shift) / after)

    if every is None:
        return curve(step)
    rewarm, since = min(rewarm, every - 1), step % every
    restart = step - since
    if since >= rewarm or restart in (0, warmup):
        return curve(step)
    return ALMOST_ZERO + since / rewarm * (curve(restart) - ALMOST_ZERO)
