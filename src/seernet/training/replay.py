"""Training steps on a GPU as one recorded CUDA graph, instead of a thousand launches each.

A small network keeps a GPU busy for shorter than Python needs to launch its kernels. Recorded once
and replayed, a step costs one launch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from seernet.data import Targets

logger = logging.getLogger(__name__)

EAGER = 3  # steps before the recording: libraries choose and build their kernels in these
Step = Callable[[Tensor, Targets], Tensor]


class Replay:
    """Runs the steps of one training; records the fourth, and replays it for all that follow.

    Only steps over images and labels of the same shapes are replayed, the others run as usual: a
    detector's work depends on how many boxes an image has. So do networks that cannot be recorded
    (that wait for the GPU in their forward pass), with a warning. What a network decides in Python
    is decided when it is recorded.
    """

    def __init__(self) -> None:
        self._ran = 0
        self._usable = True
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None
        self._images: Tensor
        self._labels: Tensor
        self._loss: Tensor

    def __call__(self, step: Step, images: Tensor, targets: Targets) -> Tensor:
        """Make one step.

        Args:
            step: Makes it: forward, backward, update. Always the same one.
            images: `b x c x h x w`, on the GPU.
            targets: What is in them.

        Returns:
            Its loss, a scalar, valid until the next step.
        """
        if not self._usable or not isinstance(targets, Tensor):
            return step(images, targets)
        self._ran += 1
        if self._ran <= EAGER:
            return self._aside(step, images, targets)
        if self._graph is None and not self._record(step, images, targets):
            return step(images, targets)
        if images.shape != self._images.shape or self._graph is None:
            return step(images, targets)
        self._images.copy_(images)
        self._labels.copy_(targets)
        self._graph.replay()
        return self._loss

    def _aside(self, step: Step, images: Tensor, labels: Tensor) -> Tensor:
        """Run a step on the stream that will be recorded."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            loss = step(images, labels)
        torch.cuda.current_stream().wait_stream(self._stream)
        return loss

    def _record(self, step: Step, images: Tensor, labels: Tensor) -> bool:
        self._images, self._labels = images.clone(), labels.clone()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                self._loss = step(self._images, self._labels)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            logger.warning("this network's training cannot be recorded, only run: %s", reason)
            self._usable = False
            return False
        self._graph = graph
        return True
