"""Hardware: the tf.distribute.Strategy for `hardware=...`, and the coordination of workers.

Public: `factory.prepare`, `factory.build_strategy`, `factory.is_chief`, `workers.AllGather`,
`workers.for_hardware`, `workers.single_process`, `workers.worker_failure_guard`.
"""
