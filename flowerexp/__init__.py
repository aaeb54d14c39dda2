"""Experiments with image classifiers on imbalanced data, from Python and notebooks.

    config = flowerexp.compose("model=mobilenet", "loop.epochs=3")
    run = flowerexp.run(config)
    flowerexp.compare("outputs")

Importing this package is cheap, because each name is imported on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowerexp.api.results import compare, evaluate, export, load_run, load_runs, predict
    from flowerexp.api.run import Run
    from flowerexp.api.training import ComposedConfig, compose, run, sweep
    from flowerexp.comparison.comparison import Comparison
    from flowerexp.errors import UserError

__version__ = "0.1.0"

__all__ = ["Comparison", "ComposedConfig", "Run", "UserError", "compare", "compose", "evaluate",
           "export", "load_run", "load_runs", "predict", "run", "sweep"]

MODULES = {"Comparison": "comparison.comparison", "UserError": "errors", "Run": "api.run",
           **dict.fromkeys(("ComposedConfig", "compose", "run", "sweep"), "api.training")}
"""The modules of the names that are not in flowerexp.api.results."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"flowerexp.{MODULES.get(name, 'api.results')}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
