"""Stage `fit`: cross-validate the predictor families, choose one, and fit it on everything."""

import logging
import shutil
from collections.abc import Sequence

import pandas as pd
import torch

from seernet import artifacts
from seernet.config import FEWEST_POLICIES, Params, load
from seernet.graph import NetworkGraph
from seernet.policy import FeatureMap, Sensitivity, checked_space, save_policies
from seernet.predictor import CrossValidation, assess, fit, save, select
from seernet.sampling.table import lessons, policies_of
from seernet.stage import run

logger = logging.getLogger("fit")


def main() -> None:
    """Write `models/predictor/` and its metrics."""
    torch.set_num_threads(1)  # what is fitted must not depend on how sums are divided
    params = load()
    space = checked_space(NetworkGraph.load(artifacts.GRAPH), params)
    table = lessons(artifacts.read_table(artifacts.EVALUATIONS, "sample"))
    held_out = table["origin"] == "random"
    sensitivity = Sensitivity.load(space, artifacts.SENSITIVITIES, "sample")
    feature_map = FeatureMap(space, sensitivity)
    features, scores, soft = learnable(table[~held_out], feature_map)
    family, families = select(features, scores, params.predictor, params.seed, soft)
    fitted = fit(family, features, scores, params.predictor, params.seed, soft)
    save(fitted, artifacts.PREDICTOR)
    # Later stages need both, and read nothing of `sample`'s.
    shutil.copyfile(artifacts.SENSITIVITIES, artifacts.PREDICTOR_SENSITIVITIES)
    save_policies(artifacts.PREDICTOR_POLICIES, policies_of(table[~held_out]))
    predictions(families, scores).to_csv(artifacts.CROSS_VALIDATION, index=False)
    ends = [int((table[~held_out]["round"] <= n).sum()) for n in table["round"].unique()]
    test = learnable(table[held_out], feature_map)
    curve = learning_curve(ends, family, (features, scores, soft), test, params)
    curve.to_csv(artifacts.LEARNING_CURVE, index=False)
    metrics = {
        "family": family,
        **figures(families[family]),
        "families": {name: figures(result) for name, result in families.items()},
    }
    artifacts.write_json(artifacts.METRICS / "fit.json", metrics)
    if families[family].r2 < 0.0:
        logger.warning("the predictor is worse than the mean score; raise sample.evaluations")
    logger.info("%s: R2 %.3f, tau %.3f", family, metrics["r2"], metrics["kendall_tau"])


def figures(result: CrossValidation) -> dict[str, float]:
    """The scalars of a cross-validation."""
    names = ("n", "r2", "kendall_tau", "rmse", "nll", "coverage80")
    return {name: getattr(result, name) for name in names}


def predictions(families: dict[str, CrossValidation], scores: torch.Tensor) -> pd.DataFrame:
    """Held-out predictions of every row by every family."""
    parts = [
        pd.DataFrame(
            {
                "family": name,
                "score": scores.numpy(),
                "mean": result.mean.numpy(),
                "std": result.std.numpy(),
            }
        )
        for name, result in families.items()
    ]
    return pd.concat(parts, ignore_index=True)


Rows = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


def learnable(table: pd.DataFrame, features: FeatureMap) -> Rows:
    """Features, scores and, if all have one, soft scores of measured policies."""
    scores = torch.tensor(table["score"].to_numpy(), dtype=torch.float64)
    soft = torch.tensor(table["soft_score"].to_numpy(), dtype=torch.float64)
    points = features.space.encode(policies_of(table))
    return features(points), scores, None if bool(soft.isnan().any()) else soft


def learning_curve(
    counts: Sequence[int], family: str, rows: Rows, test: Rows, params: Params
) -> pd.DataFrame:
    """Error on the random policies, which no predictor sees, of one fitted to the first n rows.

    Args:
        counts: Values of n, at the end of each sampling round.
        family: The chosen family.
        rows: What `learnable` gave, in the order of measurement.
        test: The same of the random policies.
        params: All parameters.
    """
    columns = ["evaluations", "rmse", "kendall_tau", "r2"]
    found = []
    for count in sorted(set(counts)):
        if min(count, len(test[1])) < FEWEST_POLICIES:
            continue
        soft = None if rows[2] is None else rows[2][:count]
        first = rows[0][:count], rows[1][:count]
        predictor = fit(family, *first, params.predictor, params.seed, soft)
        result = assess(family, test[1], predictor.predictive(test[0]))
        found.append([count, result.rmse, result.kendall_tau, result.r2])
    return pd.DataFrame(found, columns=columns)


if __name__ == "__main__":
    run(main)
