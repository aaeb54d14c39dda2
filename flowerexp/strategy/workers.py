"""What several workers do together: each reads its part; when one is gone, the others end."""

import contextlib
import pickle
import re
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import numpy as np
import tensorflow as tf

from flowerexp.config import Hardware
from flowerexp.errors import UserError
from flowerexp.strategy import factory

Made = TypeVar("Made")


class AllGather(Protocol):
    """A function of make(worker, workers): what each worker made, in their order, on all of them.

    A UserError of one is raised by all, so that none waits for ever.
    """

    def __call__(self, make: Callable[[int, int], Made]) -> list[Made]: ...


def single_process(make: Callable[[int, int], Made]) -> list[Made]:
    """Everywhere, where there is one process."""
    return [make(0, 1)]


def among(strategy: Any, index: int, workers: int) -> AllGather:
    """Everywhere, where each of several workers makes its own and they exchange it.

    What is made is pickled, for these are processes of one run.
    """
    def all_gather(make: Callable[[int, int], Made]) -> list[Made]:
        try:
            mine: Any = make(index, workers)
        except UserError as error:
            mine = error
        made = [pickle.loads(part) for part in exchange(strategy, workers, pickle.dumps(mine))]
        for each in made:
            if isinstance(each, UserError):
                raise each
        return made

    return all_gather


def of(asked: Hardware, strategy: Any) -> AllGather:
    """Everywhere, as the hardware asks for it; hardware=workers is one process each."""
    if asked.kind != "workers":
        return single_process
    return among(strategy, *factory.worker_of_config())


def exchange(strategy: Any, workers: int, mine: bytes) -> list[bytes]:
    """Every worker's bytes, in their order; all must come to it."""
    gather = tf.function(lambda row: strategy.gather(strategy.run(lambda: row[None]), axis=0))
    sizes = gather(tf.constant(len(mine), tf.int64)).numpy()
    padded = np.zeros(-(-sizes.max() // 4), np.int32)  # collectives gather no uint8
    padded.view(np.uint8)[:len(mine)] = np.frombuffer(mine, np.uint8)
    rows = gather(tf.constant(padded)).numpy()
    every = [row.tobytes()[:size] for row, size in zip(rows, sizes, strict=True)]
    return every[::len(every) // workers]  # the replicas of a worker all have the same


ABORTED = "Collective ops is aborted"
"""What TensorFlow says in every error of a collective that lost a worker, whatever its type."""


def is_peer_failure(error: Exception) -> bool:
    """Whether an error came because another worker no longer answers."""
    return isinstance(error, tf.errors.OpError) and ABORTED in error.message


@contextlib.contextmanager
def worker_failure_guard(asked: Hardware) -> Iterator[None]:
    """Raises UserError where the block ends because another worker no longer answers."""
    try:
        yield
    except tf.errors.OpError as error:
        if asked.kind != "workers" or not is_peer_failure(error):
            raise
        raise UserError(gone(error.message, *factory.worker_of_config())) from error


def gone(message: str, index: int, workers: int) -> str:
    """The sentence for a message of TensorFlow's, which may name this worker among others."""
    named = re.findall(r"/job:worker/(?:replica:0/)?task:(\d+)", message)
    others = sorted({int(number) for number in named} - {index})
    who = f"worker {', '.join(map(str, others))} of {workers}" if others else "another worker"
    return (f"{who} no longer answers (it was killed, failed, or cannot be reached), so worker "
            f"{index} ends too: start all workers again with the same command, and the run goes "
            "on from its last checkpoint")
