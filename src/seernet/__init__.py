"""SeerNet: pruned, mixed-precision networks for many compute budgets, from one search."""

__version__ = "0.1.0"
