"""The command line, a thin layer over the Python API: it parses arguments, calls, and prints.

`run` trains what Hydra composes (`run.main`), and `main` holds the other commands (`main.main`),
the longer ones in modules of their own: `predict` (`predict`, `evaluate`, `export`), `eda` and
`data`. The entry point, `flowerexp.__main__`, imports only what a command needs.
"""

__all__ = ["data", "eda", "main", "predict", "run"]
