"""Networks in float64, so that what is scored does not depend on the machine.

Rounding makes a quantized network unstable: a value nearly half-way between two integers goes to
either by the last bits of a float32 sum, which differ with the processor, the number of threads and
the batch; layers further on carry it over the whole map. The mAP of a detector on some 80 images
moves by 0.002 to 0.004 that way. In float64 such cases are half a billion times as rare, and the
score was the same to the digit wherever we tried (`python benchmarks/rounding.py --help`).
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn


class Exact(nn.Module):
    """A copy of a network, of classes or boxes, that computes in float64.

    Args:
        network: The network; left as it is.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).double()
        self.train(network.training)

    def forward(self, images: Tensor) -> Tensor:
        """Outputs, float64, of images of any type."""
        out: Tensor = self.network(images.double())
        return out

    def detect(self, images: Tensor) -> list[dict[str, Tensor]]:
        """See `Detector.detect`."""
        network: Any = self.network
        found: list[dict[str, Tensor]] = network.detect(images.double())
        return found
