"""Pictures of what detectors find, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from seernet.data import Dataset, Target

IMAGES = 5
CONFIDENT = 0.3  # boxes below this score are not drawn


@torch.no_grad()
def draw_detections(dataset: Dataset, detectors: Mapping[str, nn.Module], path: Path) -> None:
    """Draw the first test images with their true boxes, and with each detector's.

    Args:
        dataset: Images with boxes.
        detectors: By name, a column each, on the CPU.
        path: PNG file to write.
    """
    info = dataset.info
    images, truth = next(dataset.loader("test", IMAGES).epoch(0))
    shape = (-1, 1, 1)
    pixels = images * torch.tensor(info.std).view(shape) + torch.tensor(info.mean).view(shape)
    columns: dict[str, list[Target]] = {"annotated": list(truth)}
    for name, detector in detectors.items():
        columns[name] = detector.eval().detect(images)  # type: ignore[operator]
    figure, grid = plt.subplots(
        len(images),
        len(columns),
        figsize=(2.4 * len(columns), 2.4 * len(images)),
        squeeze=False,
        layout="constrained",
    )
    for place, (name, found) in enumerate(columns.items()):
        grid[0, place].set_title(name)
        for row, image in enumerate(pixels):
            _draw(grid[row, place], image, found[row], info.classes)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw(axes: Axes, image: Tensor, found: Target, classes: tuple[str, ...]) -> None:
    axes.imshow(image.clamp(0, 1).permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray")
    axes.set_axis_off()
    sure = found.get("scores", torch.ones(len(found["boxes"]))) >= CONFIDENT
    for box, label in zip(
        found["boxes"][sure].tolist(), found["labels"][sure].tolist(), strict=True
    ):
        left, top, right, bottom = box
        color = plt.get_cmap("tab10")(label % 10)
        axes.add_patch(
            Rectangle((left, top), right - left, bottom - top, fill=False, color=color, lw=1.2)
        )
        axes.text(left, top, classes[label], color=color, fontsize=8, va="bottom")
