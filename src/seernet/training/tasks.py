"""The registry of tasks."""

from __future__ import annotations

from seernet.data import DatasetInfo
from seernet.training.detection import Detection
from seernet.training.task import Classification, Task


def make_task(info: DatasetInfo, label_smoothing: float = 0.0) -> Task:
    """The task of a data set.

    Args:
        info: The data set.
        label_smoothing: Of classification, in [0, 1); detectors have none.
    """
    if info.task == "detection":
        return Detection(info.classes, crowds=info.name == "coco")
    return Classification(label_smoothing, 1.0 / len(info.classes))
