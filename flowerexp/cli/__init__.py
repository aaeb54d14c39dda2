"""The command line, a thin layer over the functions of the Python API: it parses and prints.

`run` trains what Hydra composes (`run.main`), `main` holds the other commands (`main.main`), those
of `data` in a module of their own. The entry point, `flowerexp.__main__`, imports only what a
command needs.
"""
