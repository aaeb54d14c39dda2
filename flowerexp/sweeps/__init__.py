"""Sweeps: many runs by one command, each in a process of its own, planned first, resumable.

`cli.run` wraps Hydra's call in `session.sweep_session`. Hydra then calls `session.Sweep` once,
which composes and checks every job and prints the plan, and `jobs.run_job` for every job, by any
launcher, which executes the folder of the job in a child process and updates the sweep's tables.
At the end the session prints the table and what is missing. Rerunning the command runs only that.

Public: `session.sweep_session`, `session.Sweep`, `jobs.run_job`.
"""
