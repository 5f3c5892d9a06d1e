"""A synthetic run in the contract's form: it is for layout and plumbing, not for results."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from seernet.graph import ChannelGroup, Layer, NetworkGraph

NAMES = ("tiny", "small", "medium", "large", "phone", "camera", "gateway", "server")


class SyntheticRun:
    """Writes every file that the report reads, below one folder."""

    def __init__(
        self,
        root: Path,
        budgets: int = 3,
        layers: int = 22,
        seeds: Sequence[int] = (0,),
        with_random: bool = True,
        metric: str = "top1",
    ) -> None:
        self.root, self.metric, self.seeds, self.with_random = root, metric, seeds, with_random
        self.random = np.random.default_rng(0)
        self.budgets = NAMES[:budgets]
        self.layers = [self._layer(i, layers) for i in range(layers)]
        self.bops = 1024.0 * sum(layer.macs for layer in self.layers)

    @staticmethod
    def _layer(index: int, count: int) -> Layer:
        width = 16 * 2 ** (3 * index // count)
        last = index == count - 1
        return Layer(
            name="fc"
            if last
            else f"stage{1 + 3 * index // count}.block{index // 2}.conv{index % 2}",
            kind="linear" if last else "conv",
            macs=width * 10 if last else width * width * 9 * 64,
            weights=width * width * 9,
            in_features=width,
            out_features=10 if last else width,
            inputs={},
            outputs={} if last or index % 2 == 0 else {f"group{index}": width},
            depthwise=False,
            bias=True,
            edge=index == 0 or last,
        )

    def write(self) -> Path:
        groups = tuple(
            ChannelGroup(name, size, ())
            for layer in self.layers
            for name, size in layer.outputs.items()
        )
        (self.root / "models/baseline").mkdir(parents=True)
        NetworkGraph((3, 32, 32), tuple(self.layers), groups, (), (), {}).save(
            self.root / "models/baseline/graph.json"
        )
        self._json("results/metrics/pretrain.json", self._pretrain())
        self._sample()
        self._predictor()
        for rank, budget in enumerate(self.budgets):
            self._budget(budget, 0.005 * 1.55**rank)
        return self.root

    def _json(self, path: str, document: dict[str, Any]) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    def _table(self, path: str, columns: dict[str, Any]) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(columns).to_csv(target, index=False)

    def _pretrain(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "search_score": 0.952,
            "baseline_bops": self.bops,
            "baseline_macs": int(self.bops / 1024),
            "baseline_parameters": 272474,
            "baseline_size_bytes": 1089896,
            "train_macs": 410_000_000_000_000,
        }

    def _score(self, ratio: Any, penalty: float = 0.0) -> Any:
        return 0.945 - 0.004 / np.asarray(ratio) ** 0.75 / 4 - penalty

    def _sample(self) -> None:
        origins = ["initial"] * 24 + ["active"] * 40 + ["random"] * 64
        ratio = np.exp(self.random.uniform(math.log(0.003), math.log(0.03), len(origins)))
        score = self._score(ratio) - self.random.gamma(1.5, 0.03, len(origins))
        score[5] = np.nan
        self._table(
            "data/evaluations/evaluations.csv",
            {
                "round": [0] * 24 + [1 + i // 8 for i in range(40)] + [0] * 64,
                "origin": origins,
                "cost_bops": ratio * self.bops,
                "score": score,
                "train_macs": [2_000_000_000_000] * len(origins),
                "error": ["loss is not a number" if i == 5 else None for i in range(len(origins))],
            },
        )
        macs = {"initial": 48 * 10**12, "active": 80 * 10**12, "random": 128 * 10**12}
        self._json(
            "results/metrics/sample.json", {"evaluations": 64, "failed": 1, "train_macs": macs}
        )

    def _predictor(self) -> None:
        score = np.tile(self.random.uniform(0.55, 0.94, 64), 2)
        std = self.random.uniform(0.015, 0.04, 128)
        self._table(
            "models/predictor/cross_validation.csv",
            {
                "family": ["gp"] * 64 + ["ensemble"] * 64,
                "score": score,
                "mean": score + std * self.random.normal(size=128) * np.repeat([1.0, 1.7], 64),
                "std": std,
            },
        )
        n = np.arange(24, 65, 8)
        self._table(
            "models/predictor/learning_curve.csv",
            {
                "evaluations": n,
                "rmse": 0.2 / n**0.5,
                "kendall_tau": 1 - 2.2 / n**0.6,
                "r2": 1 - 5 / n,
            },
        )
        ratio = np.geomspace(0.003, 0.03, 100)
        self._table(
            "results/front.csv",
            {
                "cost_bops": ratio * self.bops,
                "bops_ratio": ratio,
                "mean": self._score(ratio, 0.01),
                "std": 0.008 + 0.00006 / ratio,
            },
        )
        quality = {"n": 64, "r2": 0.87, "kendall_tau": 0.78, "rmse": 0.027, "coverage80": 0.81}
        self._json(
            "results/metrics/fit.json",
            {
                "family": "gp",
                **quality,
                "families": {"gp": quality, "ensemble": {**quality, "r2": 0.81, "coverage80": 0.6}},
            },
        )

    def _budget(self, budget: str, ratio: float) -> None:
        networks = {
            "seernet": self._network(0.996 * ratio, 0.0),
            "uniform": self._network(0.93 * ratio, 0.02),
            "random": self._network(0.97 * ratio, 0.012),
        }
        shared = {"budget": budget, "metric": self.metric, "baseline_score": 0.957}
        self._json(f"results/metrics/finetune/{budget}.json", {**shared, **networks["seernet"]})
        uniform = {**networks["uniform"], "predicted_score": None, "slack": 0.07}
        random = {**networks["random"], "predicted_score": None}
        baseline = {**shared, "uniform": uniform, "random": random if self.with_random else None}
        self._json(f"results/metrics/baseline/{budget}.json", baseline)
        self._json(
            f"results/metrics/optimize/{budget}.json",
            {
                "predicted_score": networks["seernet"]["predicted_score"],
                "predicted_std": 0.012,
                "cost_bops": networks["seernet"]["cost_bops"],
                "budget_bops": ratio * self.bops,
                "limits": {"bops": ratio * self.bops},
                "slack": 0.004,
            },
        )
        self._policy(budget, ratio)

    def _network(self, ratio: float, penalty: float) -> dict[str, Any]:
        score = float(self._score(ratio, penalty)) + 0.01
        runs = [
            {
                "seed": seed,
                "search_score": score + 0.004 * float(self.random.normal()),
                "test_score": score + 0.004 * float(self.random.normal()),
                "best_epoch": 17,
            }
            for seed in self.seeds
        ]
        return {
            "cost_bops": ratio * self.bops,
            "bops_ratio": ratio,
            "macs": int(self.bops / 1024 * min(1.0, 20 * ratio)),
            "parameters": int(2e6 * ratio),
            "size_bytes": int(1.5e6 * ratio),
            "predicted_score": score - 0.02,
            "train_macs": 35_000_000_000_000 * len(self.seeds),
            "runs": runs,
        }

    def _policy(self, budget: str, ratio: float) -> None:
        def bits(layer: Layer) -> int:
            middle = 8 + 1.6 * math.log(ratio / 0.05)
            return 8 if layer.edge else int(np.clip(self.random.normal(middle, 1), 2, 8))

        groups = [group for layer in self.layers for group in layer.outputs]
        self._json(
            f"models/policies/{budget}.json",
            {
                "budget": budget,
                "pruning_ratio": {g: 0.125 * int(self.random.integers(0, 6)) for g in groups},
                "weight_bits": {layer.name: bits(layer) for layer in self.layers},
                "act_bits": {layer.name: bits(layer) for layer in self.layers},
                "cost_bops": ratio * self.bops,
            },
        )


@pytest.fixture
def synthetic(tmp_path: Path) -> Callable[..., Path]:
    """Write a synthetic run below the test's folder; returns its root."""

    def write(**options: Any) -> Path:
        return SyntheticRun(tmp_path, **options).write()

    return write
