"""math-verify in a process of its own, so that no completion can hang training.

sympy may compute for ever inside one C call (9^{9^{9^9}}), where neither an alarm nor a thread's time
limit reaches it, and alarms need the main thread besides. Killing a process always works.

Run as a script it is that process: one JSON line [answer, completion] in, one verdict out (true, false,
or null where the answer cannot be read). It imports math-verify alone.
"""

import atexit
import json
import select
import subprocess
import sys
import threading
from functools import lru_cache

SECONDS = 5.0  # for one completion, TRL's limit for verify
START = 120.0  # importing sympy on a busy machine


class MathJudge:
    """Judges completions one by one; a process that overruns its time is killed and started anew."""

    def __init__(self, seconds: float = SECONDS):
        self.seconds = seconds
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()
        atexit.register(self.close)

    def __call__(self, answer: str, completion: str) -> bool | None:
        """True, False (also where time runs out), or None where ``answer`` cannot be read."""
        with self._lock:
            process = self._process
            if process is None or process.poll() is not None:
                process = self._start()
            try:
                assert process.stdin is not None  # a pipe
                process.stdin.write(json.dumps([answer, completion]) + "\n")
                process.stdin.flush()
                return json.loads(_line(process, self.seconds))
            except (OSError, json.JSONDecodeError):  # too long, or it died of it
                self.close()
                return False

    def _start(self) -> subprocess.Popen:
        process = self._process = subprocess.Popen(
            [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, encoding="utf-8",
        )  # fmt: skip
        if _line(process, START) != "ready\n":
            self.close()
            raise RuntimeError(f"math-verify's process did not start: {sys.executable} -P {__file__}")
        return process

    def close(self) -> None:
        """End the process; the next call starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _line(process: subprocess.Popen, seconds: float) -> str:
    """The next line of its output; empty where none comes in time, or the process is gone."""
    assert process.stdout is not None  # a pipe
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    return process.stdout.readline() if ready else ""


def _serve() -> None:
    from math_verify import parse, verify

    verify(parse("$\\boxed{1}$"), parse("1"))  # the first one builds grammars: outside a completion's time
    print("ready", flush=True)

    @lru_cache(1)  # a group asks the same question G times
    def read(answer: str) -> list:
        return parse(f"${answer}$", parsing_timeout=None) or parse(answer, parsing_timeout=None)

    for line in sys.stdin:
        answer, completion = json.loads(line)
        try:
            found = parse(completion, parsing_timeout=None) if (gold := read(answer)) else []
            verdict = bool(verify(gold, found, timeout_seconds=None)) if gold else None
        except Exception:  # whatever sympy stumbles over is no right answer
            verdict = False
        print(json.dumps(verdict), flush=True)


if __name__ == "__main__":
    _serve()
