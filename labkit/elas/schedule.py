"""LORO's learning-rate schedule: warm-up, late cosine, a ramp after every restart."""

import math

# LORO's: where its ramp after a restart begins, the steps it takes, the least factor elsewhere.
ALMOST_ZERO, REWARM, FLOOR = 1e-6, 5, 0.1


def cosine_restart(step: int, *, total: int, warmup: int, every: int | None) -> float:
    """LORO's factor on the learning rate at ``step`` (from 0): warm-up, late cosine, a ramp per restart.

    With W = ``warmup``, s = W (``lr_adjust_steps = -W`` in LORO's runs) and c(x) = (1 + cos(pi x)) / 2:

        t < W     FLOOR + (c(s / (total - W)) - FLOOR) t / W
        t >= W    FLOOR + (1 - FLOOR) c((t - W - s) / (total - W)), highest at t = 2W

    The REWARM steps after an exact one, t = every, 2 every, ..., climb from 1e-6 to this curve's
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
            return FLOOR + (cosine(shift / after) - FLOOR) * t / warmup
        return FLOOR + (1 - FLOOR) * cosine((t - warmup - shift) / after)

    if every is None:
        return curve(step)
    rewarm, since = min(REWARM, every - 1), step % every
    restart = step - since
    if since >= rewarm or restart in (0, warmup):
        return curve(step)
    return ALMOST_ZERO + since / rewarm * (curve(restart) - ALMOST_ZERO)
