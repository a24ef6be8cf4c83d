"""The study's processes: which job each takes, what waits, what an error or a deadline leaves."""

import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from labkit.elas import ARMS
from labkit.studies.elas.plan import plan, rates, settings
from labkit.studies.elas.pool import Slot, pick, spread

BASE = settings(4, tiny=True)
RATES = {arm: rates(arm)[0] for arm in ARMS}


def slots(*built, share=1):
    return [Slot(i // share, i % share, print, one) for i, one in enumerate(built)]


def test_a_process_takes_the_jobs_of_the_arm_that_it_has_compiled():
    jobs = plan("arms", BASE, 4, RATES)
    a, b = ([job for job in jobs if job.shown == arm] for arm in ("dense_swiglu", "dense_relu2"))
    one, two = pool = slots(b[0].built, a[0].built)
    assert pick([*a, *b], one, pool, []) is b[0]  # its own
    one.built = None
    assert pick([*a, *b], one, pool, []) is b[0]  # nobody has it
    two.built, one.built = b[0].built, a[0].built
    assert pick(b[:2], one, pool, []) is None  # two runs are not worth compiling for
    assert pick(b[:3], one, pool, []) is b[0]
    plain, without = (job for job in [*jobs, *plan("rules", BASE, 1, RATES)]
                      if job.shown in ("elas_ste", "elas_no_warmup") and not job.config.seed)  # fmt: skip
    assert plain.built == without.built != a[0].built


def test_a_step_is_timed_alone_on_a_shared_card():
    jobs = [*plan("times", BASE, 1, {}), *plan("tune", BASE, 1, {})]
    first, second = slots(None, None, share=2)
    timing = pick(jobs, first, [first, second], [])
    assert timing.stage == "times"
    assert pick(jobs, second, [first, second], [timing]) is None
    left = [job for job in jobs if job.stage == "tune"]
    assert pick(left, second, [first, second], [timing]) is None
    assert pick(left, second, [first, second], []) is left[0]
    assert pick(jobs, first, [first, second], [left[0]]) is None
    alone = slots(None, None)
    assert pick(left, alone[1], alone, [timing]) is not None  # another card


def threaded(count):
    made = slots(*[None] * count)
    for slot in made:
        slot.executor = ThreadPoolExecutor(1)
    return made


def test_every_job_is_done_once_and_an_error_is_told():
    jobs, results = plan("arms", BASE, 2, RATES), {}

    def waiting():  # the second seed of an arm waits for its first
        return [j for j in jobs if j.name not in results and (not j.config.seed or any(
            name.startswith(j.name[:-1]) for name in results))]  # fmt: skip

    def act(job):
        if job.shown == "elas_ste":
            raise RuntimeError("no card")
        return job.name.upper()

    def done(job, found, error):
        assert job.name not in results
        results[job.name] = error or found

    spread(waiting, act, done, threaded(3), float("inf"))
    assert len(results) == 14
    for job in jobs:
        found = results[job.name]
        assert str(found) == "no card" if job.shown == "elas_ste" else found == job.name.upper()


def test_no_job_starts_after_the_deadline():
    jobs, told = plan("arms", BASE, 2, RATES), []
    spread(lambda: jobs, lambda job: job, lambda *found: told.append(found), threaded(2), time.time() - 1)
    assert told == []


def test_a_slot_whose_process_died_opens_another():
    class Dead:
        def submit(self, *_):
            raise BrokenProcessPool

    (slot,) = slots(None)
    slot.executor = Dead()
    slot._open = lambda: setattr(slot, "executor", ThreadPoolExecutor(1))
    job = plan("arms", BASE, 1, RATES)[0]
    assert slot.submit(lambda job: job.shown, job).result() == job.shown
