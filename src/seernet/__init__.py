"""SeerNet: pruned, mixed-precision networks for many compute budgets, from one search."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seernet.export import load

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import torch only where a network is really loaded."""
    if name == "load":
        from seernet.export import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
