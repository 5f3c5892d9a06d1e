"""What a predictor is to those who use it, and what a family of predictors is to this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Posterior(NamedTuple):
    """Belief about the scores of `n` policies.

    Attributes:
        mean: `n` expected scores.
        variance: `n` variances of the expected score, in squared score units, non-negative.
    """

    mean: Tensor
    variance: Tensor

    def bounded(self) -> Posterior:
        """The same belief with what is known of scores: they lie in [0, 1], their variance too."""
        return Posterior(self.mean.clamp(0.0, 1.0), self.variance.clamp(max=0.25))


class Predictor(Protocol):
    """A fitted predictor.

    Attributes:
        family: Its key in `FAMILIES`.
        noise_variance: Variance of one measurement around its expectation, in squared score
            units, at the median score of the rows it was fitted on.
    """

    @property
    def family(self) -> str: ...

    @property
    def noise_variance(self) -> float: ...

    def posterior(self, features: Tensor) -> Posterior:
        """Posterior of the expected score; differentiable in `features` (`n x f`)."""
        ...

    def predictive(self, features: Tensor) -> Posterior:
        """The same mean, with the variance of one noisy measurement."""
        ...

    def covariance(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Covariance of scores, to first order, and each one's noise: `n x n` and `n`."""
        ...


class Core(Protocol):
    """A fitted model in standardized units; each family provides one.

    Attributes:
        noise: Variance of one measurement, in squared standardized target units.
    """

    @property
    def noise(self) -> float: ...

    def moments(self, inputs: Tensor) -> Posterior:
        """Noise-free posterior at standardized inputs, `n x f`."""
        ...

    def covariance(self, inputs: Tensor) -> Tensor:
        """Noise-free posterior covariance of standardized inputs, `n x f`: `n x n`."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Everything needed to restore the model."""
        ...


@contextmanager
def single_thread() -> Iterator[None]:
    """Run on one thread, so that sums do not depend on how many the machine has.

    The matrices here are small enough that one thread is also the fastest.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
