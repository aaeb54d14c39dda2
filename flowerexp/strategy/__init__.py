"""Hardware: the tf.distribute.Strategy for `hardware=...`.

`factory.prepare` runs before TensorFlow is imported (a TPU needs legacy Keras).
`factory.build_strategy` returns the strategy for a CPU, GPUs, a TPU or several workers, and a
sentence that says why it was chosen. `workers` gathers results from all processes of
hardware=workers (`AllGather`) and stops all of them when one is lost.

Public: `factory.prepare`, `factory.build_strategy`, `factory.is_chief`, `workers.AllGather`,
`workers.for_hardware`, `workers.single_process`, `workers.worker_failure_guard`.
"""
