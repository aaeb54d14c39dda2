"""Proof: two workers end together, whatever happens to one of them, and resume exactly.

Run it from the checkout: python tests/proofs/workers.py. It starts real pairs on the loopback: one
that is not disturbed; one whose chief is killed with SIGKILL, which is restarted, stopped by
SIGTERM to the other worker alone, and resumed to the end; one that reaches its time limit and is
resumed; one in which one worker has a mistake of its own; one that streams, each worker from its
own files; one in which one worker reads a bad record; one with fewer files than workers; one whose
parts are all one's own (examples/own_parts), the second worker of which is killed, resumed and
compared with two replicas of one process. The clocks of the workers differ. It prints what it saw,
and takes two to three minutes on two quiet cores.
"""

import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from tests.processes import (
    begin_workers,
    end_workers,
    execute,
    read,
    same_results,
    wait_for_epochs,
    weights_of,
    write_tiny,
)
from tests.strategy.test_workers import check_rows, folders_of_their_own, stream
from tests.test_own_parts import EVERY, EXAMPLE

LONGEST = 60
"""Seconds within which a worker must notice that another is lost."""


class Proof:
    """The folder and the data of all pairs."""

    def __init__(self, place):
        self.place, self.root = place, place / "data"
        self.root.mkdir()
        write_tiny(self.root)

    def begin(self, name, *more, **options):
        return begin_workers([self.place] * 2, self.root, f"name={name}", "loop.epochs=12", *more,
                             clocks=(1, 7), **options)

    def run(self, name):
        return self.place / "outputs" / name


def end(workers, codes, *words):
    """The seconds until they ended with these codes and words, and what they printed."""
    start = time.monotonic()
    ends = end_workers(workers)
    printed = " ".join(output + errors for _, output, errors in ends)
    assert [code for code, *_ in ends] == codes, ends
    assert all(word in printed for word in words), ends
    return time.monotonic() - start, ends


def killed_and_stopped(proof):
    seconds, _ = end(proof.begin("whole"), [0, 0])
    print(f"uninterrupted: {seconds:.0f} s", flush=True)
    run = proof.run("broken")
    workers = proof.begin("broken")
    wait_for_epochs(run, 2, workers[0])
    workers[0].kill()
    seconds, ends = end(workers, [-signal.SIGKILL, 1], "worker 0 of 2 no longer responds")
    assert seconds < LONGEST, seconds
    assert ends[1][2].count("\n") == 1, ends
    done = len(read(run, "history.json"))
    print(f"chief killed after {done} of 12 epochs; {seconds:.1f} s later: {ends[1][2].strip()}",
          flush=True)
    workers = proof.begin("broken")
    wait_for_epochs(run, done + 2, workers[0])
    workers[1].send_signal(signal.SIGTERM)
    seconds, ends = end(workers, [143, 143], "resuming from",
                        "interrupted by SIGTERM to another worker")
    assert seconds < LONGEST, seconds
    assert read(run, "status.json")["state"] == "interrupted"
    done = len(read(run, "history.json"))
    print(f"SIGTERM to worker 1 alone: both ended with 143 after {done} epochs", flush=True)
    end(proof.begin("broken"), [0, 0], "resuming from")
    same_results(proof.run("whole"), run)
    print("rerun: every result as uninterrupted, bit for bit", flush=True)


def out_of_time(proof):
    end(proof.begin("timed", "loop.max_minutes=0.02", "loop.checkpoint_minutes=0.001"), [75, 75],
        "interrupted by loop.max_minutes=0.02")
    end(proof.begin("timed"), [0, 0], "resuming from")
    same_results(proof.run("whole"), proof.run("timed"))
    print("out of time: both ended with 75, and resumed bit for bit", flush=True)


def one_mistaken(proof):
    wrong = ("dataset.root=/nowhere",)
    seconds, ends = end(proof.begin("mistaken", own=((), wrong)), [1, 1],
                        "/nowhere does not exist", "worker 1 of 2 no longer responds")
    print(f"a mistake of worker 1: both ended, {seconds:.0f} s after their start: "
          f"{ends[1][2].strip()} | {ends[0][2].strip()}", flush=True)


def streaming(proof):
    places = folders_of_their_own(proof.root, proof.place)
    ends = stream(places)
    assert [code for code, *_ in ends] == [0, 0], ends
    assert not [path for path in (places[1] / "outputs").rglob("*") if path.is_file()]
    check_rows(places[0] / "outputs/stream", proof.root)
    print("streaming: each read its own files, and the first wrote", flush=True)


def bad_record(proof):
    """Of worker 1's file, which with cache=none no other reads."""
    root = proof.place / "damaged"
    shutil.copytree(proof.root, root)
    damaged = sorted((root / "val").iterdir())[1]
    damaged.write_bytes(damaged.read_bytes()[:-9])
    words = f"{damaged}, record 6: "
    _, ends = end(proof.begin("bad", "dataset.cache=none", f"dataset.root={root}"), [1, 1], words)
    assert ends[0][2] == ends[1][2], ends
    assert ends[0][2].count("\n") == 1, ends
    print(f"a bad record of worker 1: {ends[0][2].strip()}", flush=True)


def too_few_files(proof):
    files = sorted((proof.root / "train").iterdir())
    shutil.move(files[1], proof.place)
    words = "2 workers cannot share 1 training files"
    _, ends = end(proof.begin("few", "dataset.cache=none"), [1, 1], words)
    assert all(words in errors and errors.count("\n") == 1 for *_, errors in ends), ends
    print(f"one file for two workers: {ends[1][2].strip()}", flush=True)


def own_parts(proof):
    words = (f"--config-dir={EXAMPLE / 'conf'}", *EVERY, "loop.epochs=12")

    def begin(name):
        return begin_workers([proof.place] * 2, None, f"name={name}", *words, clocks=(1, 7))

    whole, run = proof.run("own"), proof.run("own_killed")
    end(begin("own"), [0, 0])
    workers = begin("own_killed")
    wait_for_epochs(run, 2, workers[0])  # the first epoch has its checkpoint
    workers[1].kill()
    sentence = "worker 1 of 2 no longer responds"
    seconds, ends = end(workers, [1, -signal.SIGKILL], sentence)
    assert seconds < LONGEST, seconds
    assert ends[0][2].count("\n") == 1, ends
    status = read(run, "status.json")
    assert status["state"] == "failed"
    assert sentence in status["error"], status
    done = len(read(run, "history.json"))
    assert done < 12
    end(begin("own_killed"), [0, 0], "resuming from")
    same_results(whole, run)
    assert read(whole, "weight_norms.json") == read(run, "weight_norms.json")
    one = execute(proof.place, None, "name=own_replicas", *words, "hardware=cpu",
                  "hardware.replicas=2")
    assert one.returncode == 0, one.stderr
    for left, right in zip(weights_of(whole), weights_of(proof.run("own_replicas")), strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-4)
    print(f"own parts: killed after {done} of 12 epochs, resumed bit for bit, and as two replicas",
          flush=True)


CASES = (killed_and_stopped, out_of_time, one_mistaken, streaming, bad_record, too_few_files,
         own_parts)


def main():
    failures = 0
    with tempfile.TemporaryDirectory() as place:
        proof = Proof(Path(place).resolve())
        for case in CASES:
            try:
                case(proof)
            except Exception as error:
                failures += 1
                print(f"FAILED: {case.__name__}: {error!r}", flush=True)
    print(f"{len(CASES) - failures} of {len(CASES)} cases; {time.monotonic() - START:.0f} s")
    return failures > 0


START = time.monotonic()

if __name__ == "__main__":
    sys.exit(main())
