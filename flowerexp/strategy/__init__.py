"""Where a run computes: from `hardware=...` to a tf.distribute.Strategy.

`factory.prepare` runs before TensorFlow is imported (a TPU needs legacy Keras), and
`factory.build_strategy` returns the strategy of a CPU, GPUs, a TPU or several workers with a
sentence on why it was chosen. `workers` lets the processes of hardware=workers exchange what each
reads (`AllGather`), and ends all of them when one is lost.

Public: `factory.prepare`, `factory.build_strategy`, `factory.is_chief`, `workers.AllGather`,
`workers.for_hardware`, `workers.single_process`, `workers.worker_failure_guard`.
"""
