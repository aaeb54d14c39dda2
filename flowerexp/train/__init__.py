"""Training: a run from config to predictions, started, interrupted and resumed.

`launch.execute` executes a run folder: it starts a new run, resumes a partial one exactly where it
stopped, and leaves a finished one alone. `experiment.run` is a run from top to bottom,
`trainer.Trainer` its compiled updates, `checkpoint.Checkpointer` its saved state; `callbacks` holds
the protocol `Callback` and the built-in ones, which use `events` and `pictures`. `preview.preview`
derives the sizes of runs before they start. Public: these names, `launch.resume`,
`callbacks.Callbacks` and `callbacks.RunState`.
"""
