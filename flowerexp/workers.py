"""When one of several workers is gone, the others end, and say so."""

import contextlib
import re
from collections.abc import Iterator

import tensorflow as tf

from flowerexp import hardware
from flowerexp.config import Hardware
from flowerexp.errors import UserError

ABORTED = "Collective ops is aborted"
"""What TensorFlow says in every error of a collective that lost a worker, whatever its type."""


def is_of_another(error: Exception) -> bool:
    """Whether an error came because another worker no longer answers."""
    return isinstance(error, tf.errors.OpError) and ABORTED in error.message


@contextlib.contextmanager
def watched(asked: Hardware) -> Iterator[None]:
    """Raises UserError where the block ends because another worker no longer answers."""
    try:
        yield
    except tf.errors.OpError as error:
        if asked.kind != "workers" or not is_of_another(error):
            raise
        raise UserError(gone(error.message, *hardware.worker_of_config())) from error


def gone(message: str, index: int, workers: int) -> str:
    """The sentence for a message of TensorFlow's, which may name this worker among others."""
    named = re.findall(r"/job:worker/(?:replica:0/)?task:(\d+)", message)
    others = sorted({int(number) for number in named} - {index})
    who = f"worker {', '.join(map(str, others))} of {workers}" if others else "another worker"
    return (f"{who} no longer answers (it was killed, failed, or cannot be reached), so worker "
            f"{index} ends too: start all workers again with the same command, and the run goes "
            "on from its last checkpoint")
