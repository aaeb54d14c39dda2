"""The command line, a thin face of the Python API: it reads words, calls, and prints.

`run` trains what Hydra composes of its words; `main` holds the other commands, with those of more
than a page in modules of their own: `predict` (predict, evaluate, export), `eda` and `data`. The
entry, `flowerexp.__main__`, imports only what the command needs.
"""

__all__ = ["data", "eda", "main", "predict", "run"]
