"""Deep ensemble: small networks with a linear skip path, all trained at once.

Each member is y = s 1'x/sqrt(f) + w'x + MLP(x): a slope common to all features (the monotone prior,
see `gp`), each feature's own, and a network with two hidden layers. Members differ by their
initial weights, to which they stay anchored, and by noise added to their targets, so that their
spread approximates a posterior (Pearce, Leibfried & Brintrup 2020, Uncertainty in neural networks:
approximately Bayesian ensembling). Anchoring replaces weight decay: it is weight decay towards the
initial draw. The noise level is learned with the weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from seernet.config import PredictorConfig
from seernet.predictor.interface import Core, Posterior

LEARNING_RATE = 0.01
MIN_NOISE = 1e-3  # standardized
# The prior of the noise level, worth that many rows: members can fit few rows exactly, which would
# say that there is no noise.
PRIOR_NOISE, PRIOR_ROWS = 0.15, 20.0
# Prior standard deviations, each for inputs of unit variance and a layer of any width.
COMMON_SLOPE, OWN_SLOPES, HIDDEN, OUTPUT = 1.0, 0.5, 0.7, 0.5


@dataclass(frozen=True)
class Ensemble:
    """Fitted members in standardized units.

    Attributes:
        weights: Parameters by name, each with a leading dimension `m` of members.
        noise: Variance of one measurement.
    """

    weights: dict[str, Tensor]
    noise: float

    def moments(self, inputs: Tensor) -> Posterior:
        """Mean and variance over members at `n x f` inputs."""
        outputs = _forward(self.weights, inputs)
        return Posterior(outputs.mean(dim=0), outputs.var(dim=0).clamp_min(1e-12))

    def covariance(self, inputs: Tensor) -> Tensor:
        """Covariance of `n x f` inputs over members, `n x n`."""
        covariance: Tensor = _forward(self.weights, inputs).mT.cov()
        return covariance

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and noise: what `restore` needs."""
        return {**self.weights, "noise": torch.tensor(self.noise, dtype=torch.float64)}


def fit(inputs: Tensor, targets: Tensor, config: PredictorConfig, seed: int) -> Core:
    """Train all members on standardized rows, `n x f` and `n`, by full-batch Adam."""
    generator = torch.Generator().manual_seed(seed)
    scales = _prior_scales(inputs.shape[1], config)
    anchors = {
        name: scale * torch.randn(config.members, *shape, generator=generator, dtype=torch.float64)
        for name, (shape, scale) in scales.items()
    }
    unit = torch.randn(config.members, len(targets), generator=generator, dtype=torch.float64)
    weights = {name: anchor.clone().requires_grad_() for name, anchor in anchors.items()}
    log_noise = torch.tensor(math.log(PRIOR_NOISE), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([*weights.values(), log_noise], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.iterations)
    for _ in range(config.iterations):
        optimizer.zero_grad()
        noise = log_noise.exp() + MIN_NOISE
        pull = sum(
            ((weights[name] - anchors[name]) / scale).square().sum()
            for name, (_, scale) in scales.items()
        )
        outputs = _forward(weights, inputs)
        fit_error = (outputs - targets - noise.detach().sqrt() * unit).square().sum()
        # Each member chases its own noise; the level is judged on the members' mean, which does
        # not, and the weights are held fixed in that term.
        mean_error = (outputs.detach().mean(dim=0) - targets).square().sum()
        members = (fit_error / noise.detach() + pull) / config.members
        evidence = mean_error + PRIOR_ROWS * PRIOR_NOISE
        loss = members + evidence / noise + (len(targets) + PRIOR_ROWS) * noise.log()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    trained = {name: weight.detach() for name, weight in weights.items()}
    return Ensemble(trained, float(log_noise.detach().exp()) + MIN_NOISE)


def restore(tensors: dict[str, Tensor]) -> Core:
    """Rebuild an ensemble from what `Ensemble.tensors` returned.

    Raises:
        KeyError: If the noise is missing.
    """
    weights = dict(tensors)
    return Ensemble(weights, float(weights.pop("noise")))


def _prior_scales(
    columns: int, config: PredictorConfig
) -> dict[str, tuple[tuple[int, ...], float]]:
    """Shape and prior standard deviation of each parameter of one member."""
    width = config.hidden
    return {
        "common_slope": ((1, 1), COMMON_SLOPE / math.sqrt(columns)),
        "own_slopes": ((columns, 1), OWN_SLOPES / math.sqrt(columns)),
        "hidden1": ((columns, width), HIDDEN / math.sqrt(columns)),
        "bias1": ((1, width), HIDDEN),
        "hidden2": ((width, width), HIDDEN / math.sqrt(width)),
        "bias2": ((1, width), HIDDEN),
        "output": ((width, 1), OUTPUT / math.sqrt(width)),
        "bias": ((1, 1), OUTPUT),
    }


def _forward(weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """Outputs of all members, `m x n`, at shared inputs `n x f`."""
    x = inputs.expand(len(weights["bias"]), *inputs.shape)  # m x n x f
    hidden = functional.silu(torch.baddbmm(weights["bias1"], x, weights["hidden1"]))
    hidden = functional.silu(torch.baddbmm(weights["bias2"], hidden, weights["hidden2"]))
    nonlinear = torch.baddbmm(weights["bias"], hidden, weights["output"])
    linear = torch.bmm(x, weights["own_slopes"] + weights["common_slope"])
    return (linear + nonlinear).squeeze(-1)
