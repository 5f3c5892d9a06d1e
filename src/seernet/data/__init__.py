"""Images with labels or boxes: prepared once and checked completely, then loaded fast."""

from seernet.data.dataset import Dataset
from seernet.data.info import SPLITS, DatasetInfo, Split
from seernet.data.loader import Augment, Batch, Loader, Target, Targets
from seernet.data.preparation import prepare

__all__ = [
    "SPLITS",
    "Augment",
    "Batch",
    "Dataset",
    "DatasetInfo",
    "Loader",
    "Split",
    "Target",
    "Targets",
    "prepare",
]
