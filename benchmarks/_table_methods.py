"""Ways to predict accuracy from a table of policies: SeerNet's, and what else one would use."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _shared import Array
from sklearn.base import RegressorMixin
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import RidgeCV
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from seernet.config import PredictorConfig
from seernet.predictor import fit, gp

INNER_FOLDS = 3  # of the choice between our models


@dataclass(frozen=True)
class Table:
    """A table of policies.

    Attributes:
        ratios: Pruning ratios, `n x g`.
        bits: Bit-widths, `n x l`.
        scores: Accuracies in [0, 1], `n`.
    """

    ratios: Array
    bits: Array
    scores: Array

    @classmethod
    def read(cls, path: Path) -> Table:
        """Read a table; percentages become fractions."""
        try:
            frame = pd.read_csv(path)
        except (OSError, ValueError) as error:
            sys.exit(f"error: cannot read {path} ({error}); give a CSV file.")
        groups = [[c for c in frame if c.startswith(p)] for p in ("pruning_ratio_", "bits_")]
        if "accuracy" not in frame or not any(groups):
            sys.exit(f"error: {path} needs columns pruning_ratio_* or bits_*, and accuracy.")
        try:
            values = frame[[*groups[0], *groups[1], "accuracy"]].astype(float)
        except ValueError as error:
            sys.exit(f"error: {path} holds something that is no number ({error}); correct it.")
        holes = values.isna().any(axis=1)
        if holes.any():
            sys.exit(f"error: row {int(holes.idxmax()) + 2} of {path} has an empty cell; drop it.")
        scores = values["accuracy"].to_numpy(copy=True)
        if scores.max() > 1.0:
            scores = scores / 100.0
        if scores.min() < 0.0 or scores.max() > 1.0:
            sys.exit(f"error: accuracies in {path} lie neither in [0, 1] nor in [0, 100].")
        return cls(values[groups[0]].to_numpy(), values[groups[1]].to_numpy(), scores)

    @property
    def raw(self) -> Array:
        """The columns as they are."""
        return np.hstack([self.ratios, self.bits])

    @property
    def physical(self) -> Array:
        """Kept fractions, and the share of the quantization noise 4^-bits that bits take away."""
        if self.bits.shape[1] == 0:
            return 1.0 - self.ratios
        return np.hstack([1.0 - self.ratios, 1.0 - 4.0 ** (self.bits.min() - self.bits)])


Prediction = tuple[Array, Array | None]  # means, and standard deviations if there are any
Method = Callable[[Table, Array, Array, int], Prediction]


def seernet(table: Table, train: Array, test: Array, seed: int) -> Prediction:
    """Three models, each weighted by how well it predicts rows that were held back.

    One is the pipeline's Gaussian process, on physical features. What a table's columns mean is not
    known, so another is a linear model of raw columns; nor whether they mean anything, so the last
    predicts the mean.
    """
    order = np.random.default_rng(seed).permutation(train)
    evidence = np.zeros(len(MODELS))
    for held in np.array_split(order, INNER_FOLDS):
        kept = np.setdiff1d(order, held, assume_unique=True)
        for index, model in enumerate(MODELS):
            mean, variance = model(table, kept, held)
            squares = np.square(table.scores[held] - mean) / variance
            evidence[index] -= 0.5 * (squares + np.log(variance)).sum()
    # Halved: folds share most of their rows, so their densities are not independent evidence.
    weights = np.exp(0.5 * (evidence - evidence.max()))
    weights /= weights.sum()
    means, variances = map(np.stack, zip(*(m(table, train, test) for m in MODELS), strict=True))
    mean = weights @ means
    return mean, np.sqrt(weights @ (variances + np.square(means - mean)))


def physical(table: Table, train: Array, test: Array) -> tuple[Array, Array]:
    """The pipeline's Gaussian process: means and variances of a measurement, `test` rows."""
    features, scores = torch.from_numpy(table.physical), torch.from_numpy(table.scores)
    predictor = fit("gp", features[train], scores[train], PredictorConfig(), 0)
    with torch.no_grad():
        mean, variance = predictor.predictive(features[test])
    return mean.numpy(), variance.numpy()


def linear(table: Table, train: Array, test: Array) -> tuple[Array, Array]:
    """A Bayesian linear model of raw columns: the same process with other priors."""
    inputs = torch.from_numpy(StandardScaler().fit(table.raw[train]).transform(table.raw))
    centre, spread = table.scores[train].mean(), table.scores[train].std() + 1e-9
    targets = torch.from_numpy((table.scores[train] - centre) / spread)
    core = gp.fit(inputs[train], targets, PredictorConfig(), 0, gp.LINEAR)
    with torch.no_grad():
        mean, variance = core.moments(inputs[test])
    return centre + spread * mean.numpy(), spread**2 * (variance.numpy() + core.noise)


def constant(table: Table, train: Array, test: Array) -> tuple[Array, Array]:
    """The mean of the rows, for a table whose columns say nothing."""
    scores, shape = table.scores[train], len(test)
    variance = scores.var(ddof=1) * (1.0 + 1.0 / len(scores)) + 1e-12
    return np.full(shape, scores.mean()), np.full(shape, variance)


MODELS = (physical, linear, constant)


def peer(
    make: Callable[[int], RegressorMixin], table: Table, train: Array, test: Array, seed: int
) -> Prediction:
    """A scikit-learn regressor on standardized raw columns."""
    model = make_pipeline(StandardScaler(), make(seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # convergence; what it reached is what it is
        model.fit(table.raw[train], table.scores[train])
        return model.predict(table.raw[test]), None


def authors_mlp(table: Table, train: Array, test: Array, seed: int) -> Prediction:
    """The published network: two hidden layers of 15, ELU, Adam at 0.2.

    Columns and scores are standardized, without which that learning rate diverges.
    """
    centre, spread = table.scores[train].mean(), table.scores[train].std() + 1e-12
    scaler = StandardScaler().fit(table.raw[train])
    x = torch.from_numpy(scaler.transform(table.raw)).float()
    y = torch.from_numpy((table.scores - centre) / spread).float()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hidden = [nn.Linear(x.shape[1], 15), nn.ELU(), nn.Linear(15, 15), nn.ELU()]
        model = nn.Sequential(*hidden, nn.Linear(15, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.2)
    for _ in range(300):
        optimizer.zero_grad()
        (model(x[train])[:, 0] - y[train]).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        return centre + spread * model(x[test])[:, 0].double().numpy(), None


def _gaussian_process(seed: int) -> GaussianProcessRegressor:
    kernel = ConstantKernel() * RBF(5.0) + WhiteKernel(0.1)
    return GaussianProcessRegressor(kernel, normalize_y=True, random_state=seed)


PEERS: dict[str, Callable[[int], RegressorMixin]] = {
    "ridge": lambda _: RidgeCV(np.logspace(-3, 3, 25)),
    "random_forest": lambda seed: RandomForestRegressor(200, random_state=seed),
    "gradient_boosting": lambda seed: GradientBoostingRegressor(random_state=seed),
    "gaussian_process": _gaussian_process,
    "mlp": lambda seed: TransformedTargetRegressor(
        MLPRegressor(hidden_layer_sizes=(64, 64), alpha=1e-2, max_iter=500, random_state=seed),
        transformer=StandardScaler(),
    ),
}
METHODS: dict[str, Method] = {
    "seernet": seernet,
    **{name: partial(peer, make) for name, make in PEERS.items()},
    "authors_mlp": authors_mlp,
}
