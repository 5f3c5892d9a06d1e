"""What benchmarks share: tables for a terminal, summaries on disk, intervals, presets' networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from seernet.config import Params, load
from seernet.export import Shipped
from seernet.models import build, trace
from seernet.policy import Policy, SearchSpace

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
RESAMPLES = 2000
Array = NDArray[np.float64]
# Shape of an image and number of classes, of the presets whose speed is measured.
PRESETS = {"cifar10-resnet20": ((3, 32, 32), 10), "imagenet-mobilenetv2": ((3, 224, 224), 1000)}


@dataclass(frozen=True)
class Untrained:
    """A preset's network with random weights: speed does not depend on them."""

    params: Params
    network: nn.Module
    space: SearchSpace
    images: torch.Tensor

    @classmethod
    def of(cls, preset: str) -> Untrained:
        """Build it, in eval mode, with random images to calibrate quantizers on."""
        shape, classes = PRESETS[preset]
        params = load(ROOT / "presets" / f"{preset}.yaml")
        torch.manual_seed(0)
        bare = params.model.model_copy(update={"weights": None, "checkpoint": None})
        network = build(bare, classes, shape).eval()
        space = SearchSpace(trace(network, shape, classes), params.space)
        images = torch.randn(16, *shape, generator=torch.Generator().manual_seed(0))
        return cls(params, network, space, images)

    def shipped(self, policy: Policy) -> Shipped:
        """What the network is, compressed by a policy."""
        graph = self.space.graph
        middle = (0.5,) * graph.input_shape[0]
        names = tuple(map(str, range(graph.layers[-1].out_features)))
        return Shipped(self.params.model, policy, graph, "classification", names, middle, middle)


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table for a terminal and the README."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def write_summary(name: str, summary: Any) -> None:
    """Write `benchmarks/results/NAME/summary.json`."""
    path = RESULTS / name / "summary.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def bootstrap(
    count: int, statistic: Callable[[NDArray[np.int64]], float], level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of a statistic of `count` cases that are drawn with replacement.

    Args:
        count: Number of cases.
        statistic: Its value for `count` indices of cases.
        level: Nominal coverage.
    """
    draws = np.random.default_rng(0).integers(0, count, (RESAMPLES, count))
    values = [statistic(draw) for draw in draws]
    low, high = np.nanquantile(values, ((1.0 - level) / 2, (1.0 + level) / 2))
    return float(low), float(high)
