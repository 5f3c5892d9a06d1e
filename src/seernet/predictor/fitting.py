"""The registry of predictor families, and how one of them is fitted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from seernet.config import PredictorConfig
from seernet.errors import ArtifactError, ConfigError
from seernet.predictor import ensemble, gp
from seernet.predictor.interface import Core, Posterior, Predictor, single_thread
from seernet.predictor.scaling import Scaling, check_rows


@dataclass(frozen=True)
class Family:
    """How a kind of model is fitted to standardized rows and restored from its tensors."""

    fit: Callable[[Tensor, Tensor, PredictorConfig, int], Core]
    restore: Callable[[dict[str, Tensor]], Core]


FAMILIES: dict[str, Family] = {
    "gp": Family(gp.fit, gp.restore),
    "ensemble": Family(ensemble.fit, ensemble.restore),
}


@dataclass(frozen=True)
class FittedPredictor:
    """A family's fitted model with its scaling; implements `Predictor`."""

    family: str
    core: Core
    scaling: Scaling

    @property
    def noise_variance(self) -> float:
        median = self.scaling.median_score
        known = torch.zeros_like(median)
        return float(self.scaling.noise_variance(Posterior(median, known), self.core.noise))

    def posterior(self, features: Tensor) -> Posterior:
        """Posterior of the expected score of one measurement.

        Args:
            features: `n x f`; taken as float64.

        Raises:
            ArtifactError: If the number of columns is not the one it was fitted on.
        """
        moments = self.core.moments(self._inputs(features))
        return self.scaling.score_moments(moments, self.core.noise)

    def predictive(self, features: Tensor) -> Posterior:
        """Mean and variance of one noisy measurement, at `n x f` features; see `bounded`."""
        expected = self.posterior(features)
        noise = self.scaling.noise_variance(expected, self.core.noise)
        return Posterior(expected.mean, expected.variance + noise).bounded()

    def covariance(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Covariance of scores, to first order, and each one's noise, at `n x f` features.

        Returns:
            `n x n` and `n`, in squared score units.
        """
        inputs = self._inputs(features)
        slope = self.scaling.slope(self.core.moments(inputs).mean)
        joint = slope[:, None] * slope * self.core.covariance(inputs)
        return joint, slope.square() * (self.core.noise + float(self.scaling.residual))

    def _inputs(self, features: Tensor) -> Tensor:
        """Standardized features, `n x f`, after a check of their number."""
        columns = len(self.scaling.feature_mean)
        if features.dim() != 2 or features.shape[1] != columns:
            raise ArtifactError(
                f"this predictor was fitted on {columns} features, got shape "
                f"{tuple(features.shape)}; run the fit stage again."
            )
        return self.scaling.inputs(features.double())


def fit(
    family: str,
    features: Tensor,
    scores: Tensor,
    config: PredictorConfig,
    seed: int,
    soft: Tensor | None = None,
) -> Predictor:
    """Fit one family on measured policies; the same inputs give the same predictor to the bit.

    Args:
        family: Key of `FAMILIES`.
        features: `n x f`, in about [0, 1].
        scores: `n` measured scores, in [0, 1].
        config: The `predictor` section.
        seed: Seed of the ensemble's initial weights; the Gaussian process needs none.
        soft: `n` soft scores, less noisy companions of the scores, or None; see `smoothed`.

    Raises:
        ConfigError: If the family is unknown.
        ArtifactError: If rows are too few, not finite, or out of range, or soft scores are.
    """
    if family not in FAMILIES:
        raise ConfigError(
            f"predictor.family must be one of {sorted(FAMILIES)}, got {family!r}; change it."
        )
    features, scores = check_rows(features, scores)
    if soft is not None:
        _, soft = check_rows(features, soft)
    with single_thread(), torch.enable_grad():
        scaling = Scaling.of(features, scores, soft)
        rows = scaling.inputs(features), scaling.targets(scores, soft)
        core = FAMILIES[family].fit(*rows, config, seed)
    return FittedPredictor(family, core, scaling)
