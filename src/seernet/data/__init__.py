"""Images with labels or boxes: prepared once and checked completely, then loaded fast."""

from seernet.data.dataset import Dataset
from seernet.data.info import SPLITS, DatasetInfo
from seernet.data.loader import Augment, Loader, Target, Targets
from seernet.data.preparation import prepare

__all__ = ["SPLITS", "Augment", "Dataset", "DatasetInfo", "Loader", "Target", "Targets", "prepare"]
