"""How well is accuracy predicted from measured policies, against what else one would use?

The table has columns `pruning_ratio_*`, `bits_*`, in any order, and `accuracy`; one row a policy.
In every repetition all methods meet the same shuffled folds. SeerNet sees physical features (kept
fractions, quantization noise 4^-bits) beside the raw columns, the peers the raw columns, as one
would hand them over.

    python benchmarks/predictor_table.py TABLE.csv                # 5 folds, 10 repetitions
    python benchmarks/predictor_table.py TABLE.csv --rows 50      # fit on 50 rows, test on the rest
    python benchmarks/predictor_table.py TABLE.csv --json         # one JSON object, nothing else
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from _shared import Array, write_summary
from scipy.stats import kendalltau
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
from seernet.predictor.validation import HALF_WIDTH_80
from seernet.progress import bar

FOLDS = 5
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


def splits(n: int, rows: int | None, seed: int) -> list[tuple[Array, Array]]:
    """Rows to fit on and to predict: five folds, or `rows` against all others."""
    order = np.random.default_rng(seed).permutation(n)
    if rows is not None:
        return [(order[:rows], order[rows:])]
    folds = np.array_split(order, FOLDS)
    return [(np.setdiff1d(order, fold, assume_unique=True), fold) for fold in folds]


def repetition(job: tuple[Table, int | None, int]) -> dict[str, dict[str, float]]:
    """All methods on the splits of one seed."""
    table, rows, seed = job
    torch.set_num_threads(1)
    parts = splits(len(table.scores), rows, seed)
    truth = np.concatenate([table.scores[test] for _, test in parts])
    found = {}
    for name, method in METHODS.items():
        predictions = [method(table, train, test, seed) for train, test in parts]
        mean = np.concatenate([m for m, _ in predictions])
        found[name] = figures(truth, mean)
        deviations = [s for _, s in predictions if s is not None]
        if deviations:
            inside = np.abs(truth - mean) <= HALF_WIDTH_80 * np.concatenate(deviations)
            found[name]["coverage80"] = float(inside.mean())
    return found


def figures(truth: Array, mean: Array) -> dict[str, float]:
    """How good predictions are."""
    error = np.square(truth - mean)
    spread = np.square(truth - truth.mean()).sum()
    tau = kendalltau(truth, mean).statistic
    return {
        "r2": float(1.0 - error.sum() / spread) if spread > 0 else 0.0,
        "kendall_tau": float(tau) if np.isfinite(tau) else 0.0,
        "rmse": float(np.sqrt(error.mean())),
    }


def summarize(found: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Means over the repetitions."""
    return {
        name: {key: statistics.mean(f[name][key] for f in found) for key in found[0][name]}
        for name in found[0]
    }


def render(found: Sequence[dict[str, dict[str, float]]]) -> str:
    """The table for a terminal (Markdown), means and standard deviations of the repetitions."""
    lines = [
        "| method | R2 | Kendall tau | RMSE | 80 % coverage |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in found[0]:
        cells = []
        for key, digits in (("r2", 3), ("kendall_tau", 3), ("rmse", 4), ("coverage80", 2)):
            values = [f[name][key] for f in found if key in f[name]]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            shown = f"{statistics.mean(values):.{digits}f} ± {spread:.{digits}f}" if values else ""
            cells.append(shown)
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Compare the predictors on a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("table", type=Path, help="CSV file")
    parser.add_argument("--rows", type=int, help="fit on so many rows, test on the others")
    parser.add_argument("--repetitions", type=int, default=10, help="shuffle seeds (default 10)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--save", help="also write results/predictor_table/SAVE/summary.json")
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    arguments = parser.parse_args()
    table = Table.read(arguments.table)
    fewest = (
        arguments.rows if arguments.rows is not None else len(table.scores) * (FOLDS - 1) // FOLDS
    )
    if fewest < 5 or fewest >= len(table.scores):
        parser.error(f"{len(table.scores)} rows are too few to fit on {fewest} and test on others")
    jobs: list[tuple[Any, ...]] = [
        (table, arguments.rows, seed) for seed in range(arguments.repetitions)
    ]
    with ProcessPoolExecutor(arguments.workers) as pool, bar(len(jobs), "repetitions", "") as shown:
        found = []
        for result in pool.map(repetition, jobs):
            found.append(result)
            shown.update()
    if arguments.save:
        write_summary(f"predictor_table/{arguments.save}", summarize(found))
    print(json.dumps(summarize(found), indent=2) if arguments.json else render(found))


if __name__ == "__main__":
    main()
