"""Training: one run from its config to its predictions, started, stopped and resumed.

`launch.execute` takes a run folder through its life: new folders start, partial ones resume exactly
where they stopped, finished ones are left alone. `experiment.run` is one run from top to bottom,
`trainer.Trainer` its compiled updates, `checkpoint.Checkpointer` its state on disk.
`preview.preview` tells what runs would be, for the plan of a sweep and a dry run.

Public: `launch.execute`, `launch.resume`, `preview.preview`, `experiment.run`, `trainer.Trainer`,
`checkpoint.Checkpointer`.
"""
