"""Cross-validation of predictor families, and the choice between them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from seernet.config import PredictorConfig
from seernet.errors import ArtifactError
from seernet.predictor.fitting import FAMILIES, fit
from seernet.predictor.interface import Posterior
from seernet.predictor.scaling import check_rows

# Half width of the central 80 % interval of a Gaussian, in standard deviations.
HALF_WIDTH_80 = 1.2815515655446004
DEFAULT_FAMILY = "gp"
# Below this many rows, each is a fold of its own.
FEW_ROWS = 8


@dataclass(frozen=True)
class CrossValidation:
    """How a family predicts rows that it was not fitted on.

    Attributes:
        family: Key of `FAMILIES`.
        n: Number of rows.
        r2: 1 - squared error / squared deviation of the scores from their mean; 0 if all scores
            are equal.
        kendall_tau: Rank correlation (tau-b) of predictions and scores; 0 if either is constant.
        rmse: Root mean squared error, in score units.
        nll: Mean negative log predictive density, in nats, of a Gaussian with `mean` and `std`.
        coverage80: Fraction of scores inside the central 80 % interval of that Gaussian.
        mean: `n` held-out predictions.
        std: `n` predictive standard deviations, measurement noise included.
    """

    family: str
    n: int
    r2: float
    kendall_tau: float
    rmse: float
    nll: float
    coverage80: float
    mean: Tensor
    std: Tensor


def cross_validate(
    family: str,
    features: Tensor,
    scores: Tensor,
    config: PredictorConfig,
    seed: int,
    soft: Tensor | None = None,
) -> CrossValidation:
    """Predict every row by a predictor fitted on the folds that do not hold it.

    Args:
        family: Key of `FAMILIES`.
        features: `n x f`, in about [0, 1].
        scores: `n` measured scores, in [0, 1].
        config: The `predictor` section. Fewer than eight rows are left out one by one, whatever
            `folds` says, so that enough remain to fit on.
        seed: Seed of the shuffle, so that families meet the same folds, and of each fit.
        soft: `n` soft scores for the fits, or None; predictions are held against the scores.

    Raises:
        ConfigError: If the family is unknown.
        ArtifactError: If rows are fewer than four, not finite, or out of range.
    """
    features, scores = check_rows(features, scores)
    if (n := len(scores)) < 4:
        raise ArtifactError(
            f"cross-validation needs at least 4 measured policies, got {n}; raise "
            "sample.evaluations, or see in evaluations.csv why others failed."
        )
    folds = _folds(n, config.folds, seed)
    mean, std = torch.zeros_like(scores), torch.zeros_like(scores)
    for held_out in folds:
        kept = torch.ones(n, dtype=torch.bool)
        kept[held_out] = False
        companions = None if soft is None else soft[kept]
        predictor = fit(family, features[kept], scores[kept], config, seed, companions)
        with torch.no_grad():
            predictive = predictor.predictive(features[held_out])
        mean[held_out], std[held_out] = predictive.mean, predictive.variance.sqrt()
    return _summarize(family, scores, mean, std)


def select(
    features: Tensor,
    scores: Tensor,
    config: PredictorConfig,
    seed: int,
    soft: Tensor | None = None,
) -> tuple[str, dict[str, CrossValidation]]:
    """Compare all families on the same folds and choose one.

    `auto` judges by predictive density, not by error: the active loop and the ascent use the
    variance too, and only the density judges mean and variance together. It stays with the
    Gaussian process unless another family is better by more than one standard error of the
    difference: away from the data, where the ascent goes, its variance returns to the prior's,
    while an ensemble's members tend to agree on what none of them has seen.

    Returns:
        The chosen family and each family's cross-validation. Any other `config.family` than
        `auto` is taken as it is.

    Raises:
        ArtifactError: If rows are too few, not finite, or out of range.
    """
    results = {
        name: cross_validate(name, features, scores, config, seed, soft) for name in FAMILIES
    }
    return (choose(scores, results) if config.family == "auto" else config.family), results


def choose(scores: Tensor, results: Mapping[str, CrossValidation]) -> str:
    """The family that `select` prefers, given each one's predictions of `n` scores."""
    chosen = DEFAULT_FAMILY
    for name, result in results.items():
        gain = _log_density(scores, result.mean, result.std) - _log_density(
            scores, results[chosen].mean, results[chosen].std
        )
        if float(gain.mean()) > float(gain.std()) / math.sqrt(len(gain)):
            chosen = name
    return chosen


def assess(family: str, scores: Tensor, predictive: Posterior) -> CrossValidation:
    """Hold predictions (with measurement noise) against `n` scores that the fit did not see."""
    mean, variance = predictive
    return _summarize(family, scores, mean.detach(), variance.detach().sqrt())


def _folds(n: int, folds: int, seed: int) -> list[Tensor]:
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return list(order.tensor_split(n if n < FEW_ROWS else min(folds, n)))


def _log_density(scores: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Log predictive density of each held-out score, in nats."""
    z = (scores - mean) / std
    return -0.5 * z.square() - std.log() - 0.5 * math.log(2 * math.pi)


def _summarize(family: str, scores: Tensor, mean: Tensor, std: Tensor) -> CrossValidation:
    from scipy.stats import kendalltau

    squared_error = (scores - mean).square()
    deviation = (scores - scores.mean()).square().sum()
    tau = float(kendalltau(scores.numpy(), mean.numpy()).statistic)
    return CrossValidation(
        family=family,
        n=len(scores),
        r2=float(1 - squared_error.sum() / deviation) if deviation > 1e-18 else 0.0,
        kendall_tau=tau if math.isfinite(tau) else 0.0,
        rmse=float(squared_error.mean().sqrt()),
        nll=float(-_log_density(scores, mean, std).mean()),
        coverage80=float((((scores - mean) / std).abs() <= HALF_WIDTH_80).double().mean()),
        mean=mean,
        std=std,
    )
