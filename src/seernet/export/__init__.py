"""Export: compressed networks as files that ship."""

from seernet.export.packed import MODEL, TENSORS, Shipped, load, save

__all__ = ["MODEL", "TENSORS", "Shipped", "load", "save"]
