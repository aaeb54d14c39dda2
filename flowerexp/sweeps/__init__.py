"""Sweeps: one command, many runs, each in its own process, planned first and resumable.

`cli.run` wraps Hydra's call in `session.sweep_session`. Hydra first calls `session.Sweep`, which
composes and checks all jobs and prints the plan. Its launcher then calls `jobs.run_job` for every
job, which executes the job's folder in a child process and updates the sweep's tables. At the end
the session prints the table and the unfinished jobs. Rerunning the command runs only those.

Public: `session.sweep_session`, `session.Sweep`, `jobs.run_job`.
"""
