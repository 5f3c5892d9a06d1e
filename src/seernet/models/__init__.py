"""Networks: building them by name, tracing them, and removing their channels."""

from seernet.models.build import build, definition, read_state
from seernet.models.surgery import feature_mask, is_depthwise, remove_channels
from seernet.models.trace import trace

__all__ = [
    "build",
    "definition",
    "feature_mask",
    "is_depthwise",
    "read_state",
    "remove_channels",
    "trace",
]
