"""Gaussian process: a linear trend plus one smooth function with a length scale a feature.

    k(x, x') = a (1'x)(1'x')/f + b x'x'/f + c exp(-1/2 sum_i (x_i - x'_i)^2 / l_i^2)

The first term is the physics: accuracy rises with every feature, so the slopes of a linear trend
share a common part, which few rows suffice to learn; the second lets each slope deviate from it.
Hyperparameters maximize the marginal likelihood times log-normal priors that hold in the regime of
fewer rows than features; length scales have their prior mode at sqrt(f), so that complexity does
not grow with the number of features (Hvarfner, Hellsten & Nardi 2024, Vanilla Bayesian
optimization performs great in high dimensions).

Fitting is BoTorch's L-BFGS on GPyTorch's exact likelihood. The posterior is written out (Rasmussen
& Williams 2006, alg. 2.1), and tests hold it against GPyTorch's: the ascent asks for thousands of
points and their gradients in each step, where the library's lazy kernels cost several times more.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from seernet.config import PredictorConfig
from seernet.predictor.interface import Core, Posterior

if TYPE_CHECKING:
    from gpytorch.kernels import Kernel

MAX_ITERATIONS = 200
UNREACHABLE = 1e10  # a loss worse than any that arises
MIN_NOISE = 1e-4  # standardized; keeps duplicated rows from making the covariance singular


@dataclass(frozen=True)
class Priors:
    """Log-normal priors, each by its mode and the standard deviation of its logarithm.

    Attributes:
        common_slope: Of the variance along the scaled sum of features, standardized units.
        own_slopes: Of the variance of each feature's own slope, times f.
        smooth: Of the smooth function's variance.
        length: Of its length scales, in multiples of sqrt(f).
        noise: Of the variance of one measurement.
    """

    common_slope: tuple[float, float] = (1.0, 1.5)
    own_slopes: tuple[float, float] = (0.2, 1.0)
    smooth: tuple[float, float] = (0.2, 1.0)
    length: tuple[float, float] = (1.0, 0.6)
    noise: tuple[float, float] = (0.1, 1.5)


POLICIES = Priors()
# For rows of which nothing is known: next to nothing beside a linear trend, and any noise.
LINEAR = Priors((0.5, 2.0), (0.2, 2.0), (1e-3, 0.5), (1.0, 0.6), (0.3, 1.5))


@dataclass(frozen=True)
class Hyperparameters:
    """Parameters of the kernel, mean and noise; float64, 0-dimensional unless stated.

    Attributes:
        common_slope: Variance a of the trend along the scaled sum of features.
        own_slopes: Variance of each feature's own slope (b / f in the module's docstring).
        smooth: Variance c of the smooth function.
        lengths: Its length scales, `f`.
        mean: Prior mean.
        noise: Variance of one measurement.
    """

    common_slope: Tensor
    own_slopes: Tensor
    smooth: Tensor
    lengths: Tensor
    mean: Tensor
    noise: Tensor

    def covariance(self, x: Tensor, y: Tensor) -> Tensor:
        """k(x, y) of the module's docstring, for `n x f` and `m x f` inputs: `n x m`."""
        common = _scaled_sum(x) @ _scaled_sum(y).mT
        scaled_x, scaled_y = x / self.lengths, y / self.lengths
        # Expanding the square turns n x m x f differences into one matrix product.
        half_squares = 0.5 * (_squares(scaled_x) + _squares(scaled_y).mT)
        rbf = torch.exp((scaled_x @ scaled_y.mT - half_squares).clamp_max(0.0))
        return self.common_slope * common + self.own_slopes * (x @ y.mT) + self.smooth * rbf

    def variance(self, x: Tensor) -> Tensor:
        """k(x, x) at each of `n x f` inputs: `n`."""
        linear = self.common_slope * _squares(_scaled_sum(x)) + self.own_slopes * _squares(x)
        return linear.squeeze(-1) + self.smooth


@dataclass(frozen=True)
class GaussianProcess:
    """A fitted Gaussian process in standardized units.

    Attributes:
        inputs: Training inputs, `n x f`.
        targets: Training targets, `n`.
        hyper: Hyperparameters.
        whitening: Inverse Cholesky factor of the rows' noisy covariance, `n x n`: a product with
            it replaces a triangular solve, which is several times slower to differentiate.
        weights: That covariance's inverse times the centred targets, `n`.
    """

    inputs: Tensor
    targets: Tensor
    hyper: Hyperparameters
    whitening: Tensor
    weights: Tensor

    @classmethod
    def of(cls, inputs: Tensor, targets: Tensor, hyper: Hyperparameters) -> GaussianProcess:
        """Condition on training rows."""
        identity = torch.eye(len(inputs), dtype=inputs.dtype)
        noisy = hyper.covariance(inputs, inputs) + hyper.noise * identity
        factor = torch.linalg.cholesky(noisy)
        whitening = torch.linalg.solve_triangular(factor, identity, upper=False)
        weights = whitening.mT @ (whitening @ (targets - hyper.mean))
        return cls(inputs, targets, hyper, whitening, weights)

    @property
    def noise(self) -> float:
        return float(self.hyper.noise)

    def moments(self, inputs: Tensor) -> Posterior:
        """Noise-free posterior at `n x f` inputs."""
        cross = self.hyper.covariance(inputs, self.inputs)
        mean = self.hyper.mean + cross @ self.weights
        explained = (cross @ self.whitening.mT).square().sum(dim=1)
        # Rounding can take the difference below zero where the rows leave no doubt.
        return Posterior(mean, (self.hyper.variance(inputs) - explained).clamp_min(1e-12))

    def covariance(self, inputs: Tensor) -> Tensor:
        """Noise-free posterior covariance of `n x f` inputs, `n x n`."""
        explained = self.hyper.covariance(inputs, self.inputs) @ self.whitening.mT
        return self.hyper.covariance(inputs, inputs) - explained @ explained.mT

    def tensors(self) -> dict[str, Tensor]:
        """Training rows and hyperparameters: what `restore` needs."""
        return {"inputs": self.inputs, "targets": self.targets, **vars(self.hyper)}


def fit(
    inputs: Tensor,
    targets: Tensor,
    config: PredictorConfig,  # noqa: ARG001
    seed: int,  # noqa: ARG001
    priors: Priors = POLICIES,
) -> Core:
    """Fit the hyperparameters to standardized rows, `n x f` and `n`; deterministic."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # GPyTorch still mentions torch.jit.script
        from botorch.optim.fit import fit_gpytorch_mll_scipy

    with warnings.catch_warnings():
        # Stopping at the iteration limit is no failure: the estimate is usable. Nor are inputs
        # outside the unit cube: the priors are made for standardized ones.
        warnings.simplefilter("ignore")
        mll = _likelihood(inputs, targets, priors)
        fit_gpytorch_mll_scipy(mll, closure=_Loss(mll), options={"maxiter": MAX_ITERATIONS})
    model = mll.model
    hyper = _read(model.covar_module, model.mean_module.constant, model.likelihood.noise)
    return GaussianProcess.of(inputs, targets, hyper)


def _likelihood(inputs: Tensor, targets: Tensor, priors: Priors) -> Any:
    """The rows' marginal likelihood times the priors, as a module, at the priors' modes."""
    from botorch.models import SingleTaskGP
    from gpytorch.constraints import GreaterThan
    from gpytorch.likelihoods import GaussianLikelihood
    from gpytorch.mlls import ExactMarginalLogLikelihood

    likelihood = GaussianLikelihood(
        noise_prior=_prior(*priors.noise), noise_constraint=GreaterThan(MIN_NOISE)
    )
    likelihood.noise = priors.noise[0]
    model = SingleTaskGP(
        torch.cat([inputs, _scaled_sum(inputs)], dim=1),
        targets.unsqueeze(-1),
        likelihood=likelihood,
        covar_module=_kernel(inputs.shape[1], priors),
        outcome_transform=None,
    )
    return ExactMarginalLogLikelihood(likelihood, model).train()


class _Loss:
    """Loss and gradients for L-BFGS; steep where a trial step leads out of arithmetic's reach.

    A line search may try hyperparameters so extreme that the covariance cannot be factorized.
    BoTorch lets that error out; a very large loss makes the search step back instead.
    """

    def __init__(self, mll: Any) -> None:
        from botorch.optim.closures import get_loss_closure_with_grads

        parameters = {n: p for n, p in mll.named_parameters() if p.requires_grad}
        self._closure = get_loss_closure_with_grads(mll, parameters)
        self._parameters = list(parameters.values())

    def __call__(self) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        from linear_operator.utils.errors import NanError, NotPSDError

        try:
            loss, gradients = self._closure()
        except (NotPSDError, NanError):
            zeros = tuple(torch.zeros_like(parameter) for parameter in self._parameters)
            return torch.tensor(UNREACHABLE, dtype=torch.float64), zeros
        return loss, tuple(gradients)


def restore(tensors: dict[str, Tensor]) -> Core:
    """Rebuild a Gaussian process from what `GaussianProcess.tensors` returned.

    Raises:
        KeyError: If a tensor is missing.
        LinAlgError: If the covariance is not positive definite.
    """
    hyper = Hyperparameters(
        **{field.name: tensors[field.name] for field in fields(Hyperparameters)}
    )
    return GaussianProcess.of(tensors["inputs"], tensors["targets"], hyper)


def _scaled_sum(inputs: Tensor) -> Tensor:
    """Sum of the features over sqrt(f), on which the common slope acts: `n x 1`."""
    return inputs.sum(dim=-1, keepdim=True) / math.sqrt(inputs.shape[-1])


def _squares(inputs: Tensor) -> Tensor:
    """Squared norm of each row: `n x 1`."""
    return inputs.square().sum(dim=-1, keepdim=True)


def _prior(mode: float, spread: float) -> Any:
    from gpytorch.priors import LogNormalPrior

    return LogNormalPrior(math.log(mode) + spread**2, spread)


def _kernel(columns: int, priors: Priors) -> Kernel:
    """The kernel of the module's docstring in GPyTorch, hyperparameters at their prior modes.

    It takes the scaled sum of the features as one more column.
    """
    from gpytorch.kernels import LinearKernel, RBFKernel, ScaleKernel

    features = tuple(range(columns))
    own_mode, length_mode = priors.own_slopes[0] / columns, priors.length[0] * math.sqrt(columns)
    common = LinearKernel(variance_prior=_prior(*priors.common_slope), active_dims=(columns,))
    own = LinearKernel(variance_prior=_prior(own_mode, priors.own_slopes[1]), active_dims=features)
    rbf = RBFKernel(
        ard_num_dims=columns,
        lengthscale_prior=_prior(length_mode, priors.length[1]),
        active_dims=features,
    )
    smooth = ScaleKernel(rbf, outputscale_prior=_prior(*priors.smooth))
    common.variance, own.variance = priors.common_slope[0], own_mode
    smooth.outputscale, rbf.lengthscale = priors.smooth[0], length_mode
    return cast("Kernel", (common + own + smooth).double())


def _read(kernel: Any, mean: Tensor, noise: Tensor) -> Hyperparameters:
    common, own, smooth = kernel.kernels
    return Hyperparameters(
        common_slope=common.variance.detach().reshape(()),
        own_slopes=own.variance.detach().reshape(()),
        smooth=smooth.outputscale.detach().reshape(()),
        lengths=smooth.base_kernel.lengthscale.detach().reshape(-1),
        mean=mean.detach().reshape(()),
        noise=noise.detach().reshape(()),
    )
