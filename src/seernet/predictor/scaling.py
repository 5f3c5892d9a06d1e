"""Units in which the families learn: standardized features, standardized log errors.

A score s becomes t = -log(1 - s + FLOOR). Degradations of a network act on its error by factors
rather than by differences, and measurements of poor policies are noisier about in proportion to
their error; in log errors, both are nearly uniform. If t is Gaussian, the error is log-normal, and
its moments in score units are exact (Snelson, Ghahramani & Rasmussen 2003, Warped Gaussian
processes, with a fixed warp).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seernet.errors import ArtifactError
from seernet.predictor.interface import Posterior

# Error added to every score: keeps the logarithm finite at a perfect score, and stops differences
# among scores above about 0.99 from dominating the fit.
FLOOR = 0.01
# A feature that hardly varied in training must not be blown up to unit variance: where it does
# vary later, that would be an extrapolation over dozens of standard deviations.
MIN_FEATURE_SPREAD = 0.05
# Spread of log errors below which scores count as constant.
MIN_TARGET_SPREAD = 1e-3
# Rows from which a curve between scores and soft scores can be trusted, and the share of the
# scores' variance that it must explain.
FEWEST_SMOOTHED = 12
LEAST_EXPLAINED = 0.75


@dataclass(frozen=True)
class Scaling:
    """Affine maps to standardized units, and back.

    Attributes:
        feature_mean: `f` means over the training rows.
        feature_spread: `f` standard deviations, at least `MIN_FEATURE_SPREAD`.
        target_mean: Mean log error, negated; 0-dimensional.
        target_spread: Its standard deviation; 0-dimensional.
        median_score: Median score of the training rows; 0-dimensional.
        residual: Variance of the targets' smoothing, standardized; 0-dimensional.
    """

    feature_mean: Tensor
    feature_spread: Tensor
    target_mean: Tensor
    target_spread: Tensor
    median_score: Tensor
    residual: Tensor

    @classmethod
    def of(cls, features: Tensor, scores: Tensor, soft: Tensor | None = None) -> Scaling:
        """Measure the scaling of training rows, `n x f`, `n` and `n`."""
        targets, residual = smoothed(scores, soft)
        spread = targets.std(correction=0).clamp_min(MIN_TARGET_SPREAD)
        return cls(
            feature_mean=features.mean(dim=0),
            feature_spread=features.std(dim=0, correction=0).clamp_min(MIN_FEATURE_SPREAD),
            target_mean=targets.mean(),
            target_spread=spread,
            median_score=scores.median(),
            residual=residual / spread**2,
        )

    def inputs(self, features: Tensor) -> Tensor:
        """Standardize features, `n x f`."""
        return (features - self.feature_mean) / self.feature_spread

    def targets(self, scores: Tensor, soft: Tensor | None = None) -> Tensor:
        """Standardized negative log errors of `n` scores; see `smoothed`."""
        targets, _ = smoothed(scores, soft)
        return (targets - self.target_mean) / self.target_spread

    def score_moments(self, moments: Posterior, noise: float) -> Posterior:
        """Moments of the expected score.

        With t ~ N(m, v) and measurement noise of variance w around t, the expected error of a
        measurement is exp(-t + w/2), whose mean is E = exp(-m + (v + w)/2) and whose variance is
        E^2 (exp(v) - 1).

        Args:
            moments: Posterior in standardized units.
            noise: Variance of one (smoothed) measurement, standardized.
        """
        variance = moments.variance * self.target_spread**2
        centre = moments.mean * self.target_spread + self.target_mean
        noise_variance = (noise + self.residual) * self.target_spread**2
        error = torch.exp(-centre + (variance + noise_variance) / 2)
        return Posterior(1.0 + FLOOR - error, error**2 * torch.expm1(variance))

    def slope(self, targets: Tensor) -> Tensor:
        """Slope of the score at `n` standardized targets: the error there, at most 1, scaled."""
        error = torch.exp(-(targets * self.target_spread + self.target_mean)).clamp_max(1.0)
        return error * self.target_spread

    def noise_variance(self, expected: Posterior, noise: float) -> Tensor:
        """Mean variance of one measurement, in squared score units.

        A measurement of known expected error e varies by e^2 (exp(w) - 1); over the posterior,
        the mean of e^2 is the squared mean plus the variance.

        Args:
            expected: Posterior of the expected score.
            noise: Variance of one (smoothed) measurement, standardized; with the residual, w.
        """
        squared_error = (1.0 + FLOOR - expected.mean) ** 2 + expected.variance
        return squared_error * torch.expm1((noise + self.residual) * self.target_spread**2)

    def tensors(self) -> dict[str, Tensor]:
        """The fields by name."""
        return dict(vars(self))


def log_errors(scores: Tensor) -> Tensor:
    """Negative log errors of `n` scores: -log(1 - score + FLOOR); rises with the score."""
    return -torch.log(1.0 - scores + FLOOR)


def smoothed(scores: Tensor, soft: Tensor | None) -> tuple[Tensor, Tensor]:
    """Log errors with less noise: as a cubic predicts them from the log errors of soft scores.

    An accuracy over a few hundred images has steps, and noise of the size of its differences; the
    mean probability of the right class follows it closely and is several times less noisy.

    Args:
        scores: `n` scores.
        soft: `n` soft scores (see `Task.score`), or None. Where they do not rise with the scores,
            or explain less than most of the log errors' variance, they are not used. Both are 0 of
            a policy that cannot be trained: that says nothing of how they go together.

    Returns:
        `n` negative log errors, and the variance of the scores' own around them, 0-dimensional.
    """
    targets = log_errors(scores)
    alone = targets, torch.zeros_like(targets.mean())
    if soft is None:
        return alone
    trained = (scores > 0.0) | (soft > 0.0)
    if int(trained.sum()) < FEWEST_SMOOTHED:
        return alone
    every, targets, own = targets.clone(), targets[trained], log_errors(soft[trained])
    centred = (own - own.mean()) / own.std(correction=0).clamp_min(MIN_TARGET_SPREAD)
    powers = torch.stack([centred**power for power in range(4)], dim=1)
    curve = powers @ torch.linalg.lstsq(powers, targets[:, None]).solution[:, 0]
    residual = (targets - curve).square().sum() / (len(targets) - powers.shape[1])
    explains = residual < (1.0 - LEAST_EXPLAINED) * targets.var()
    if not explains or (centred @ targets) <= 0.0:
        return alone
    every[trained] = curve
    return every, residual


def check_rows(features: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return both as float64 after checking that a predictor can learn from them.

    Raises:
        ArtifactError: If shapes disagree, fewer than three rows are given, a value is not finite,
            or a score lies outside [0, 1]. The message names the row.
    """
    if features.dim() != 2 or scores.dim() != 1 or len(features) != len(scores):
        raise ArtifactError(
            "the predictor needs features n x f and n scores, got shapes "
            f"{tuple(features.shape)} and {tuple(scores.shape)}; check evaluations.csv."
        )
    if len(scores) < 3:
        raise ArtifactError(
            f"the predictor needs at least 3 measured policies, got {len(scores)}; "
            "raise sample.evaluations."
        )
    features, scores = features.detach().double(), scores.detach().double()
    if bad := _first(~torch.isfinite(features).all(dim=1)):
        raise ArtifactError(f"features must be finite, row {bad[0]} is not; drop that row.")
    if bad := _first(~((scores >= 0.0) & (scores <= 1.0))):
        raise ArtifactError(
            f"scores, and soft scores, must lie in [0, 1], row {bad[0]} has "
            f"{scores[bad[0]].item():g}; leave failed measurements out."
        )
    return features, scores


def _first(mask: Tensor) -> list[int]:
    return [int(i) for i in mask.nonzero()[:1, 0]]
