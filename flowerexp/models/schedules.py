"""The learning rate of every update of a run: linear warm-up, then constant or decaying.

One table, made by NumPy before training, serves the optimizer, the printed sentence and pictures.
"""

import numpy as np
import numpy.typing as npt

from flowerexp.config import Schedule


def learning_rates(schedule: Schedule, updates: int, lr_scaling: float = 1.0
                   ) -> npt.NDArray[np.float64]:
    """The learning rate of updates 0 to `updates` - 1.

    With w = int(updates * warmup): update u < w has start + (max - start) * u / w; after that
    constant max; exponential max * (end / max)^x; linear max + (end - max) * x; cosine
    end + (max - end) * (1 + cos(pi x)) / 2 (Loshchilov and Hutter 2017, equation 5, one cycle),
    where x = (u - w) / (updates - w). All times `lr_scaling` (linear scaling, Goyal et al. 2017).

    Args:
        schedule: `start_lr` null is a hundredth of max_lr, `end_lr` null is max_lr.
        updates: of the whole run.
        lr_scaling: factor of every rate.

    Returns:
        float64 [updates].
    """
    greatest = schedule.max_lr
    start = greatest / 100 if schedule.start_lr is None else schedule.start_lr
    end = greatest if schedule.end_lr is None else schedule.end_lr
    warmup = int(updates * schedule.warmup)
    update = np.arange(updates, dtype=np.float64)
    rising = start + (greatest - start) * update / max(warmup, 1)
    x = np.clip((update - warmup) / max(updates - warmup, 1), 0, 1)
    falling = {
        "constant": np.full(updates, greatest),
        "exponential": greatest * (end / greatest) ** x,
        "linear": greatest + (end - greatest) * x,
        "cosine": end + (greatest - end) * (1 + np.cos(np.pi * x)) / 2,
    }[schedule.kind]
    return np.where(update < warmup, rising, falling) * lr_scaling
