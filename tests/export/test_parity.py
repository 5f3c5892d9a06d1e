"""Two networks see the test split together, once; differences are counted in decisions."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from seernet.config import ExportConfig
from seernet.data import Batch
from seernet.errors import ExportError
from seernet.export.parity import Comparison, compare
from seernet.training import Classification
from seernet.training.detection import Detection


class Fixed(nn.Module):
    """Gives an answer for each batch, in order."""

    def __init__(self, *answers: object) -> None:
        super().__init__()
        self.answers = list(answers)

    def forward(self, _: Tensor) -> object:
        return self.answers.pop(0)

    def detect(self, _: Tensor) -> object:
        return self.answers.pop(0)


def boxes(*rows: tuple[float, float, int]) -> list[dict[str, Tensor]]:
    """Of one image: left edge, score, class."""
    corners = [[left, 0.0, left + 10.0, 10.0] for left, _, _ in rows]
    return [
        {
            "boxes": torch.tensor(corners).reshape(-1, 4),
            "scores": torch.tensor([score for _, score, _ in rows]),
            "labels": torch.tensor([label for *_, label in rows], dtype=torch.int64),
            "crowd": torch.zeros(len(rows), dtype=torch.bool),
        }
    ]


def test_classes_are_compared_and_scored_in_one_pass() -> None:
    truth = torch.arange(4)
    batches: Iterator[Batch] = iter([(torch.zeros(4, 3, 2, 2), truth)] * 2)  # cannot be read twice
    right, wrong = torch.eye(4), torch.eye(4)[[0, 1, 2, 2]]
    found = compare(Classification(), Fixed(right, wrong), Fixed(wrong, wrong), batches)
    assert found == Comparison(7, 8, 1 / 8, test_score=7 / 8, exported_score=6 / 8)
    assert found.agreement == 7 / 8


def test_confident_boxes_are_to_be_found_by_the_other() -> None:
    one = boxes((0.0, 0.9, 0), (20.0, 0.9, 1), (40.0, 0.1, 1))
    two = boxes((1.0, 0.4, 0), (20.0, 0.8, 2))
    batches: list[Batch] = [(torch.zeros(1, 3, 60, 60), boxes((0.0, 1.0, 0), (20.0, 1.0, 1)))]
    found = compare(Detection(("a", "b", "c")), Fixed(one), Fixed(two), batches)
    assert (found.same, found.decisions, found.weight) == (1, 3, 1 / 2)
    assert found.test_score == pytest.approx(1.0)
    assert found.exported_score < 0.5  # of two classes one is found, and not quite in place


def test_networks_that_find_nothing_agree() -> None:
    batches: list[Batch] = [(torch.zeros(1, 3, 60, 60), boxes((0.0, 1.0, 0)))]
    found = compare(Detection(("a",)), Fixed(boxes()), Fixed(boxes()), batches)
    assert (found.decisions, found.agreement) == (0, 1.0)


@pytest.mark.parametrize(
    ("same", "decisions", "truths", "exported", "message"),
    [
        (9_990, 10_000, 10_000, 0.901, None),
        (98, 100, 100, 0.92, None),  # two images
        (97, 100, 100, 0.9, "97.00 %"),
        (9_800, 10_000, 10_000, 0.9, "98.00 %"),
        (9_990, 10_000, 10_000, 0.89, "0.8900"),
        (4, 7, 1_000, 0.9, "57.14 %"),  # three of seven boxes, on however many images
        (0, 2, 1_000, 0.9, None),
    ],
)
def test_a_difference_fails_with_the_numbers(
    same: int, decisions: int, truths: int, exported: float, message: str | None
) -> None:
    found = Comparison(same, decisions, 1 / truths, 0.9, exported)
    if message is None:
        found.check(ExportConfig())
        return
    with pytest.raises(ExportError, match=message):
        found.check(ExportConfig())


@pytest.mark.parametrize(
    ("same", "decisions", "other"), [(94, 100, True), (95, 100, False), (1, 3, False)]
)
def test_a_packed_network_that_decides_otherwise_is_refused(same, decisions, other):
    found = Comparison(same, decisions, 1 / decisions, 0.9, 0.5)
    if not other:
        found.check_packed()
        return
    with pytest.raises(ExportError, match=r"0\.5000 on the search split.*94\.00 %.*defect of ours"):
        found.check_packed()
