"""The optimizer of the config, with the table of learning rates as its schedule."""

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from flowerexp.config import Optimizer


@tf.keras.utils.register_keras_serializable(package="flowerexp")
class TableSchedule(tf.keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """The learning rate of update u is the table's entry u.

    Args:
        rates: float [updates], see flowerexp.models.schedules.
    """

    def __init__(self, rates: npt.NDArray[np.float64]) -> None:
        super().__init__()
        self.rates = np.asarray(rates, np.float32)

    def __call__(self, step: Any) -> tf.Tensor:
        last = len(self.rates) - 1
        return tf.gather(tf.constant(self.rates), tf.minimum(tf.cast(step, tf.int64), last))

    def get_config(self) -> dict[str, Any]:
        return {"rates": self.rates.tolist()}


def build(optimizer: Optimizer, rates: npt.NDArray[np.float64], precision: str) -> Any:
    """A Keras optimizer; under mixed_float16 it scales the loss (Micikevicius et al. 2018).

    Clipping is the trainer's, who alone sees the gradient of the whole update.
    """
    factories = {"adam": tf.keras.optimizers.Adam, "adamw": tf.keras.optimizers.AdamW,
                 "sgd": tf.keras.optimizers.SGD}
    parameters = {key: value for key, value in vars(optimizer).items()
                  if value is not None and key not in ("kind", "clip_norm")}
    built = factories[optimizer.kind](learning_rate=TableSchedule(rates), **parameters)
    if precision == "mixed_float16":
        return tf.keras.mixed_precision.LossScaleOptimizer(built)
    return built
