"""Training: the task seam, the steps, and resumable runs over epochs."""

from seernet.training.checkpoint import remove_progress
from seernet.training.exact import Exact
from seernet.training.fit import Fit, Plan, fit, scored, train_macs
from seernet.training.loop import (
    Recipe,
    make_optimizer,
    replay_on,
    reproducible,
    score,
    seeded,
    train_steps,
)
from seernet.training.task import Classification, Distillation, Task
from seernet.training.tasks import make_task

__all__ = [
    "Classification",
    "Distillation",
    "Exact",
    "Fit",
    "Plan",
    "Recipe",
    "Task",
    "fit",
    "make_optimizer",
    "make_task",
    "remove_progress",
    "replay_on",
    "reproducible",
    "score",
    "scored",
    "seeded",
    "train_macs",
    "train_steps",
]
