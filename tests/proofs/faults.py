"""Proof: a run that is killed at any moment and executed again ends as if nothing had happened.

Run it from the checkout: python tests/proofs/faults.py [KILLS], 25 kills by default. It starts real
runs of a small network with BatchNorm, dropout, augmentation and oversampling, which also save
inside epochs, and kills them with SIGKILL: while TensorFlow is imported, before the first
checkpoint, while one is written or removed, while the results of an epoch are written, between
epochs, while predictions are written, and at random moments. Then SIGTERM, a second process, a full
disk, unreadable checkpoints, and a folder moved to another path. Every run is executed again, and
all its results are compared with those of an uninterrupted run, bit for bit (except times).
Two cases run at a time; 25 kills took 21 minutes on two cores that were shared with other work.
"""

import contextlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests import forked
from tests.processes import command, read, same_results, wait_for, write_tiny

CHOSEN = ("loop.epochs=4", "loop.steps_per_execution=1", "loop.checkpoint_minutes=0.005",
          "model.dropout=0.3", "augmentation=[flip,perspective,cutmix]", "sampling=oversample",
          "sampling.target_count=12", "schedule=cosine", "schedule.end_lr=1e-5", "results.use=best",
          "dataset.cache=encoded")
EPOCHS, UPDATES = 4, 12
"""Updates of an epoch: 48 examples by 4."""
ONE_AT_A_TIME = threading.Lock()
"""For what is compared and printed."""


def has(run, *patterns):
    return any(next(run.glob(pattern), None) for pattern in patterns)


def logged(run, words):
    return (run / "run.log").exists() and words in (run / "run.log").read_text()


IMPORTING = "while TensorFlow is imported"
MOMENTS = {
    "before the first checkpoint": lambda run: logged(run, "parameters"),
    "while a checkpoint is written": lambda run: (
        has(run, "checkpoints/update-*") and has(run, "checkpoints/.partial-*/*")),
    "between epochs": lambda run: has(run, f"checkpoints/update-{2 * UPDATES:08d}"),
    "while predictions are written": lambda run: has(run, ".partial-*_probs.npy", "test_probs.npy"),
    "at random": None,
    IMPORTING: lambda run: logged(run, "run: "),
    "while an epoch's results are written": lambda run: (
        has(run, "checkpoints/update-*") and has(run, ".partial-history.json",
                                                 ".partial-valid_preds.json")),
    "while an old checkpoint is removed": lambda run: has(run, "checkpoints/.partial-update-*"),
    "at random, again": None,
    "while the model is written": lambda run: has(run, ".partial-model.keras"),
    "after the model": lambda run: has(run, "model.keras"),
}


class Proof:
    """The folder, the data and the uninterrupted run of all cases."""

    def __init__(self, place):
        self.place = place
        self.root = place / "data"
        self.root.mkdir()
        write_tiny(self.root)
        self.random = random.Random(0)
        start = time.monotonic()
        done = self.finish("straight")
        self.seconds = time.monotonic() - start
        self.straight = place / "outputs/straight"
        assert "resuming" not in done
        print(f"uninterrupted: {self.seconds:.1f} s", flush=True)

    def begin(self, name, *more, interpreter=False, preexec_fn=None):
        """Forked from one that has imported TensorFlow, or an interpreter of its own."""
        words = command(self.root, *CHOSEN, f"name={name}", *more)
        if not interpreter and not preexec_fn:
            return forked.Command(words[1:], self.place)
        return subprocess.Popen(words, cwd=self.place, stdout=subprocess.PIPE, text=True,
                                stderr=subprocess.PIPE, preexec_fn=preexec_fn)

    def end(self, process, code):
        output, errors = process.communicate(timeout=240)
        assert process.returncode == code, (process.returncode, output, errors)
        if code == 1:
            assert errors.count("\n") == 1, errors
        return output + errors

    def finish(self, name, *more, **options):
        return self.end(self.begin(name, *more, **options), 0)

    def compare(self, run):
        with ONE_AT_A_TIME:
            same_results(self.straight, run)
        assert read(run, "status.json")["state"] == "done"
        assert not has(run, ".partial-*", "checkpoints/.partial-*"), "a partial file is left"
        assert len(list((run / "checkpoints").iterdir())) <= 3

    def kill(self, name, moment, seconds):
        """Starts or resumes a run and kills it; returns its progress, None if it ended before."""
        run = self.place / "outputs" / name
        process = self.begin(name, interpreter=moment is MOMENTS[IMPORTING])
        end = time.monotonic() + (seconds if moment is None else 120)
        while process.poll() is None and time.monotonic() < end and not (
                moment is not None and moment(run)):
            time.sleep(0.0005 if moment else 0.01)
        killed = process.poll() is None
        process.kill()
        process.communicate()
        saved = sorted((run / "checkpoints").glob("update-*"))
        partial = [str(path.relative_to(run)) for path in (*run.glob(".partial-*"),
                                                           *run.glob("checkpoints/.partial-*"))]
        if not killed:
            return None
        return (f"last checkpoint {int(saved[-1].name[7:]) if saved else 'none'} of "
                f"{EPOCHS * UPDATES}{', half written: ' * bool(partial)}{', '.join(partial)}")


def kill_case(proof, number, title, seconds, again):
    name = f"killed {number}"
    before = proof.kill(name, MOMENTS[title], seconds)
    for attempt in range(3):
        if before is not None:
            break
        name = f"killed {number} attempt {attempt + 2}"  # it had finished before the kill
        before = proof.kill(name, MOMENTS[title], 0.9 * seconds)
    assert before is not None, f"no kill {title}"
    if again is not None:
        before += f"; and once more, {proof.kill(name, None, again) or 'too late'}"
    proof.finish(name)
    proof.compare(proof.place / "outputs" / name)
    return f"kill {number}, {title.partition(',')[0]}: {before}"


def sigterm_and_second_process(proof):
    run = proof.place / "outputs/stopped"
    process = proof.begin("stopped")
    wait_for(lambda: has(run, "checkpoints/update-*"))
    second = proof.end(proof.begin("stopped"), 1)
    assert f"in use by process {process.pid}" in second, second
    process.send_signal(signal.SIGTERM)
    assert "interrupted by SIGTERM" in proof.end(process, 128 + signal.SIGTERM)
    assert read(run, "status.json")["state"] == "interrupted"
    assert "resuming from" in proof.finish("stopped")
    proof.compare(run)
    return "a second process is refused; SIGTERM, resumed"


def limit_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))


def full_disk(proof):
    """A tmpfs too small for the third checkpoint, or a limit of file sizes without mounts."""
    disk = proof.place / "small disk"
    disk.mkdir()
    size = sum(file.stat().st_size for file in next(
        (proof.straight / "checkpoints").glob("update-*")).iterdir())
    mount = ["mount", "-t", "tmpfs", "-o", f"size={int(1.8 * size)}", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        run, where = (disk / "run", (f"hydra.run.dir='{disk}/run'",)) if mounted else (
            proof.place / "outputs/full", ())
        full = proof.end(proof.begin("full", *where,
                                     preexec_fn=None if mounted else limit_files), 1)
        assert "cannot be written" in full or "No space left" in full, full
        if mounted:
            subprocess.run(["mount", "-o", "remount,size=256M", str(disk)], check=True)
        resumed = proof.finish("full", *where)
        proof.compare(run)
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)
    how = "tmpfs" if mounted else "RLIMIT_FSIZE, because a tmpfs cannot be mounted here"
    return (f"full disk ({how}): {full.strip().splitlines()[-1][:60]}..., resumed"
            f"{' from a checkpoint' * ('resuming from' in resumed)}")


def truncate(path):
    path.write_bytes(path.read_bytes()[:1000])


DAMAGES = {
    "data truncated": lambda last: truncate(last / "state.data-00000-of-00001"),
    "index missing": lambda last: (last / "state.index").unlink(),
    "index garbage": lambda last: (last / "state.index").write_bytes(b"garbage" * 99),
    "manifest garbage": lambda last: (last / "manifest.json").write_text("{"),
    "empty": lambda last: [file.unlink() for file in last.iterdir()],
}


def unreadable(proof, killed, damage):
    """The last checkpoint damaged, and the status too, in a copy of a killed run."""
    name = f"damaged {damage}"
    run = proof.place / "outputs" / name
    shutil.copytree(killed, run)
    last, before = sorted((run / "checkpoints").glob("update-*"))[:-3:-1]
    DAMAGES[damage](last)
    (run / "status.json").write_text('{"state": "runn')
    output = proof.finish(name)
    assert f"the checkpoint {last} cannot be read" in output, output
    assert f"resuming from {before}:" in output, output
    assert "status.json cannot be read" in output, output
    proof.compare(run)
    return f"unreadable checkpoint ({damage}): the one before it was used"


def none_readable(proof, killed):
    run = proof.place / "outputs/none"
    shutil.copytree(killed, run)
    saved = sorted((run / "checkpoints").glob("update-*"))
    for each in saved:
        truncate(each / "state.data-00000-of-00001")
    refused = proof.end(proof.begin("none"), 1)
    assert all(each.name in refused for each in saved), refused
    shutil.rmtree(run / "checkpoints")
    proof.finish("none")
    proof.compare(run)
    return "no readable checkpoint: refused, all named; without them from the start"


def moved(proof, killed):
    other_place = proof.place / "another [place]"
    other_place.mkdir()
    run = other_place / "moved run"
    shutil.copytree(killed, run)
    done = forked.run(["-m", "flowerexp", "resume", run], other_place)
    assert done.returncode == 0, done.stderr
    assert "resuming from" in done.stdout
    proof.compare(run)
    return "moved to another path, resumed"


def main(kills):
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(2) as pool:
        proof = Proof(Path(place).resolve())
        # For the damaged and the moved: killed with two checkpoints or more.
        assert proof.kill("early", MOMENTS["between epochs"], 0)
        killed = proof.place / "outputs/early"
        whole = kills >= 25
        cases = [(sigterm_and_second_process,), (full_disk,), (moved, killed)]
        cases += [(none_readable, killed)] * whole
        cases += [(unreadable, killed, damage) for damage in list(DAMAGES)[:None if whole else 1]]
        titles = list(MOMENTS)
        for number in range(kills):
            seconds = proof.random.uniform(0, 0.97) * proof.seconds
            again = proof.random.uniform(0.3, 0.9) * proof.seconds if number % 3 == 2 else None
            cases.append((kill_case, number + 1, titles[number % len(titles)], seconds, again))
        failures = 0
        for (case, *rest), future in [(case, pool.submit(case[0], proof, *case[1:]))
                                      for case in cases]:
            try:
                print(future.result(), flush=True)
            except Exception as error:
                failures += 1
                print(f"FAILED: {case.__name__} {rest}: {error!r}", flush=True)
        seconds = time.monotonic() - START
    print(f"{len(cases) - failures} of {len(cases)} cases ended bit for bit as the uninterrupted "
          f"run, {kills} of them kills; {seconds:.0f} s")
    return failures > 0


START = time.monotonic()

if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 25))
    sys.exit(128 + signal.SIGINT)
