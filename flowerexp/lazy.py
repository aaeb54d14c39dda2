"""TensorFlow, imported on first use.

Importing it takes seconds, and the parts of a run are constructed, and so checked, before it is
needed. A module whose classes are parts uses `from flowerexp.lazy import tf`, and postpones the
evaluation of its annotations.
"""

import importlib
from typing import Any


class LazyModule:
    """A module that is imported when one of its attributes is first used.

    Args:
        name: import path of the module.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # inspection of this object, not of the module
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self._name), attribute)


tf: Any = LazyModule("tensorflow")
