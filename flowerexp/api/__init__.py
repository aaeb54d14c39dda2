"""The Python API, available as `import flowerexp`; the command line calls the same functions.

`training` composes configs and trains runs and sweeps (`compose`, `run`, `sweep`,
`ComposedConfig`), `run` represents a run folder (`Run`), and `results` loads, compares and uses
finished runs (`load_run`, `load_runs`, `compare`, `predict`, `evaluate`, `export`).
"""
