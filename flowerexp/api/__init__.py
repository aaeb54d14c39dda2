"""The Python API, whose names `import flowerexp` offers; the command line has the same functions.

`training` composes configs and trains runs and sweeps (`compose`, `run`, `sweep`,
`ComposedConfig`), `run` is a run folder as an object (`Run`), and `results` reads, compares and
uses what was trained (`load_run`, `load_runs`, `compare`, `predict`, `evaluate`, `export`). Nothing
else in the package imports it.
"""
