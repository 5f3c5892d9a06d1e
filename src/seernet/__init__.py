"""SeerNet: pruned, mixed-precision networks for many compute budgets, from one search."""

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`seernet.load`, which imports torch only where a network is really loaded."""
    if name == "load":
        return importlib.import_module("seernet.export").load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
