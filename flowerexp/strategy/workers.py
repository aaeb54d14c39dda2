"""Coordination of worker processes: gather results from all, and stop all when one is lost."""

from __future__ import annotations

import contextlib
import pickle
import re
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import numpy as np

from flowerexp.config import Hardware
from flowerexp.errors import UserError
from flowerexp.lazy import tf
from flowerexp.strategy import factory

Made = TypeVar("Made")


class AllGather(Protocol):
    """Calls `make(worker, workers)` on each worker; returns all results, in worker order, on all.

    A UserError on one worker is raised on all of them, so that none waits forever.
    """

    def __call__(self, make: Callable[[int, int], Made]) -> list[Made]: ...


def single_process(make: Callable[[int, int], Made]) -> list[Made]:
    """The AllGather for a run in one process."""
    return [make(0, 1)]


def for_hardware(hardware: Hardware, strategy: Any) -> AllGather:
    """The AllGather for this process, which is one of several with hardware=workers only."""
    if hardware.kind != "workers":
        return single_process
    index, workers = factory.worker_of_config()

    def all_gather(make: Callable[[int, int], Made]) -> list[Made]:
        try:
            mine: Any = make(index, workers)
        except UserError as error:
            mine = error
        # Pickle is safe between processes of one run.
        made = [pickle.loads(part) for part in exchange(strategy, workers, pickle.dumps(mine))]
        for each in made:
            if isinstance(each, UserError):
                raise each
        return made

    return all_gather


def exchange(strategy: Any, workers: int, mine: bytes) -> list[bytes]:
    """The bytes from all workers, in worker order; every worker must call it."""
    gather = tf.function(lambda row: strategy.gather(strategy.run(lambda: row[None]), axis=0))
    sizes = gather(tf.constant(len(mine), tf.int64)).numpy()
    padded = np.zeros(-(-sizes.max() // 4), np.int32)  # collectives do not gather uint8
    padded.view(np.uint8)[:len(mine)] = np.frombuffer(mine, np.uint8)
    rows = gather(tf.constant(padded)).numpy()
    every = [row.tobytes()[:size] for row, size in zip(rows, sizes, strict=True)]
    return every[::len(every) // workers]  # all replicas of a worker hold the same bytes


def is_peer_failure(error: Exception) -> bool:
    """Whether an error means that another worker no longer responds."""
    # In the message of every collective that lost a worker, whatever the error's type.
    return isinstance(error, tf.errors.OpError) and "Collective ops is aborted" in error.message


@contextlib.contextmanager
def worker_failure_guard(hardware: Hardware) -> Iterator[None]:
    """Raises UserError if the block ends because another worker no longer responds."""
    try:
        yield
    except tf.errors.OpError as error:
        if hardware.kind != "workers" or not is_peer_failure(error):
            raise
        index, workers = factory.worker_of_config()
        # TensorFlow's message may name this worker and others.
        named = re.findall(r"/job:worker/(?:replica:0/)?task:(\d+)", error.message)
        others = sorted({int(number) for number in named} - {index})
        lost = f"worker {', '.join(map(str, others))} of {workers}" if others else "another worker"
        raise UserError(f"{lost} no longer responds (killed, failed or unreachable), so worker "
                        f"{index} stops too: rerun the command on all workers to resume from the "
                        "last checkpoint") from error
