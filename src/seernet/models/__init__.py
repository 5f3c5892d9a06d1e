"""Networks: building them by name, tracing them, and removing their channels."""

from seernet.models.build import build, definition
from seernet.models.detector import Detector
from seernet.models.layout import lay_out
from seernet.models.maps import expose_maps
from seernet.models.modes import in_mode
from seernet.models.state import read_state
from seernet.models.surgery import feature_mask, is_depthwise, remove_channels
from seernet.models.trace import trace

__all__ = [
    "Detector",
    "build",
    "definition",
    "expose_maps",
    "feature_mask",
    "in_mode",
    "is_depthwise",
    "lay_out",
    "read_state",
    "remove_channels",
    "trace",
]
