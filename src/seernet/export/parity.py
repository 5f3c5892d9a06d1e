"""Whether an exported network decides as the network does, and scores what it does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from seernet.config import ExportConfig
from seernet.data import Batch, Target
from seernet.errors import ExportError
from seernet.training import Task

CONFIDENT = 0.5
OVERLAP = 0.5
FEW = 2  # decisions that may always differ: of a small test split, one is many percent
PACKED = 0.95  # of decisions: folding a norm may round an activation to its neighbour, no more


@dataclass(frozen=True)
class Comparison:
    """Two networks on the same images.

    Attributes:
        same: Decisions that are the same.
        decisions: How many there are: classes of images, or confident boxes of either network.
        weight: One over the number of labels or boxes that scores refer to.
        test_score: Of the network.
        exported_score: Of the exported one.
    """

    same: int
    decisions: int
    weight: float
    test_score: float
    exported_score: float

    @property
    def agreement(self) -> float:
        """Share of equal decisions; 1 where nothing was decided."""
        return self.same / self.decisions if self.decisions else 1.0

    def check(self, config: ExportConfig) -> None:
        """Hold it against what is promised; what few decisions make up may always differ.

        Raises:
            ExportError: If the exported network is another one.
        """
        off = abs(self.exported_score - self.test_score)
        agrees = self.decisions - self.same <= FEW or self.agreement >= config.agreement
        allowed = max(config.score_tolerance, FEW * self.weight)
        if agrees and off <= allowed + 1e-6:
            return
        raise ExportError(
            f"model.onnx scores {self.exported_score:.4f} on the test split where the network "
            f"scores {self.test_score:.4f} ({allowed:.2g} apart is allowed; "
            f"`export.score_tolerance` is {config.score_tolerance:g}), and they agree on "
            f"{100 * self.agreement:.2f} % "
            f"(`export.agreement` is {100 * config.agreement:g} %); loosen these if that is good "
            "enough for you, or set `export.onnx: false`."
        )

    def check_packed(self) -> None:
        """Hold a packed network, the second one, against the one that was finetuned.

        Raises:
            ExportError: If it is another one.
        """
        if self.decisions - self.same > FEW and self.agreement < PACKED:
            raise ExportError(
                f"the packed network scores {self.exported_score:.4f} on the search split, the "
                f"finetuned one {self.test_score:.4f}, and they agree on "
                f"{100 * self.agreement:.2f} %; this is a defect of ours, please report it with "
                "the model."
            )


class _Answers(nn.Module):
    """Takes answers that a network gave in place of images."""

    def forward(self, answers: Tensor) -> Tensor:
        return answers

    def detect(self, answers: list[Target]) -> list[Target]:
        return answers


def compare(
    task: Task, network: nn.Module, exported: nn.Module, batches: Iterable[Batch]
) -> Comparison:
    """Run two networks, both in eval mode, over the same batches, once.

    For classification the classes are compared. For detection, each box that one of them is
    confident of (score of at least 0.5) is to be found by the other: same class, half overlap.

    Args:
        task: What they do.
        network: The network.
        exported: What it became.
        batches: Images and what is true of them.
    """
    detects = task.metric == "map"
    answers: tuple[list[Any], list[Any]] = ([], [])
    truth = []
    with torch.no_grad():
        for images, targets in batches:
            for kept, model in zip(answers, (network, exported), strict=True):
                run: Any = model.detect if detects else model
                kept.append(run(images))
            truth.append(targets)
        scores = [
            task.score(_Answers(), zip(kept, truth, strict=True))["score"] for kept in answers
        ]
    pairs = zip(*answers, strict=True)
    counts = [_boxes(*pair) if detects else _classes(*pair) for pair in pairs]
    same, decisions = (sum(numbers) for numbers in zip(*counts, strict=True))
    truths = sum(len(t["labels"]) for targets in truth for t in targets) if detects else decisions
    return Comparison(same, decisions, 1.0 / truths, *scores)


def _classes(one: Tensor, two: Tensor) -> tuple[int, int]:
    """Equal classes of `n x classes` logits, and n."""
    return int((one.argmax(dim=1).cpu() == two.argmax(dim=1).cpu()).sum()), len(one)


def _boxes(one: Sequence[Target], two: Sequence[Target]) -> tuple[int, int]:
    """Confident boxes of either that the other has found too, and all confident boxes."""
    same = total = 0
    for pair in zip(one, two, strict=True):
        first, second = ({key: value.cpu() for key, value in each.items()} for each in pair)
        for target, reference in ((first, second), (second, first)):
            sure = target["scores"] >= CONFIDENT
            near = box_iou(target["boxes"][sure].float(), reference["boxes"].float()) >= OVERLAP
            alike = target["labels"][sure, None] == reference["labels"][None]
            same += int((near & alike).any(dim=1).sum())
            total += int(sure.sum())
    return same, total
