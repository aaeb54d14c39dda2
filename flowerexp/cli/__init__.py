"""The command line, a thin layer with the functions of the Python API: it parses and prints.

`run` trains what Hydra composes (`run.main`), and `main` holds the other commands (`main.main`),
the longer ones in modules of their own: `predict` (`predict`, `evaluate`, `export`), `eda` and
`data`. The entry point, `flowerexp.__main__`, imports only what a command needs.
"""

__all__ = ["data", "eda", "main", "predict", "run"]
