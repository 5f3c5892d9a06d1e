"""The table of `regret.py`: every policy of a small space, measured several times each.

The network, its data and the short evaluation have parameters of their own; how SeerNet searches
is decided by `params.yaml`. Measurements are kept in `.store/regret/`, so that an interrupted
`--measure` goes on; the table, the network's graph and the divergences of its single places are
kept below `benchmarks/tables/regret/`.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from _shared import ROOT, Array
from numpy.typing import NDArray
from torch import Tensor

from seernet.config import Params, load
from seernet.data import Dataset, prepare
from seernet.evaluation import (
    Evaluation,
    EvaluationSpec,
    Folders,
    Measurer,
    Pretrainer,
    save_baseline,
)
from seernet.graph import NetworkGraph
from seernet.models import build, trace
from seernet.parallel import LocalExecutor
from seernet.policy import (
    CostModel,
    Policy,
    SearchSpace,
    Sensitivity,
    probe_policy,
    probes,
    save_divergences,
)
from seernet.progress import bar
from seernet.store import Store, default_root
from seernet.training import seeded

TABLES = ROOT / "benchmarks" / "tables" / "regret"
CSV = TABLES / "table.csv"
GRAPH = TABLES / "graph.json"
SENSITIVITIES = TABLES / "sensitivities.json"
DEVICE = "cpu"

OWN: dict[str, Any] = {
    "seed": 0,
    "device": DEVICE,
    "data": {
        "name": "digits",
        "search_fraction": 0.3,
        "test_fraction": 0.3333,
        "crop_padding": 1,
    },
    "model": {"name": "benchmarks/networks/small.py:build"},
    "pretrain": {
        "epochs": 60,
        "batch_size": 64,
        "learning_rate": 0.1,
        "weight_decay": 5e-4,
        "warmup_epochs": 2,
        "threads": 1,
    },
    # 2 x 2 x 3 widths (multiples of 3 channels), and 3 x 3 and 2 x 2 bit-widths: 432 policies.
    "space": {
        "max_pruning_ratio": 0.7,
        "pruning_step": 0.1,
        "channel_multiple": 3,
        "weight_bits": [2, 3, 4],
        "act_bits": [2, 4],
        "edge_bits": 8,
    },
}
EVALUATION: dict[str, Any] = {
    "steps": 40,
    "batch_size": 64,
    "learning_rate": 0.03,
    "step_learning_rate": 1e-3,
    "weight_decay": 1e-4,
    "calibration_images": 256,
    "threads": 1,
}
COST_RANGE = [1e-4, 0.5]  # more than the space has: all of it counts


def parameters() -> Params:
    """The repository's parameters, with the network, the data and the evaluation of the table."""
    document = load().model_dump() | OWN
    document["sample"] |= {"evaluation": EVALUATION, "cost_range": COST_RANGE}
    document["budgets"] = {"any": {"bops_ratio": 1.0}}
    return Params.model_validate(document)


@dataclass(frozen=True)
class Table:
    """All policies of the space, `n`, with `k` measurements of each.

    Attributes:
        space: The space.
        points: Its policies, `n x d` discrete points.
        costs: Their BOPs, `n`.
        scores: Their scores, `n x k`.
        soft: Their soft scores, `n x k`.
    """

    space: SearchSpace
    points: Tensor
    costs: Array
    scores: Array
    soft: Array

    @classmethod
    def read(cls, params: Params) -> Table:
        """Read what `measure` wrote."""
        frame = pd.read_csv(CSV)
        space = SearchSpace(NetworkGraph.load(GRAPH), params.space)
        rows = [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]
        points = space.encode([Policy.from_row(row) for row in rows])
        scores, soft = (
            frame[[c for c in frame if str(c).startswith(kind)]].to_numpy(dtype=np.float64)
            for kind in ("score/", "soft_score/")
        )
        return cls(space, points, frame["cost_bops"].to_numpy(dtype=np.float64), scores, soft)

    @property
    def sensitivity(self) -> Sensitivity:
        """Of the space's places, as it was measured."""
        return Sensitivity.load(self.space, SENSITIVITIES, "sample")

    @property
    def levels(self) -> NDArray[np.int64]:
        """The policies as level indices, `n x d`."""
        columns = [
            (self.points[:, i, None] - levels).abs().argmin(dim=1)
            for i, levels in enumerate(self.space.levels)
        ]
        return torch.stack(columns, dim=1).numpy()

    def rows(self, points: Tensor) -> list[int]:
        """Places in the table of `m x d` discrete points."""
        return [int(i) for i in torch.cdist(points, self.points).argmin(dim=1)]


def all_points(space: SearchSpace) -> Tensor:
    """Every policy of a space, `n x d`."""
    return torch.tensor(
        list(itertools.product(*(levels.tolist() for levels in space.levels))), dtype=torch.float64
    )


def measure(params: Params, repetitions: int, jobs: int) -> None:
    """Measure what is missing, with seeds 0 .. `repetitions` - 1, and write the table."""
    root = default_root() / "regret"
    graph = baseline(params, root)
    space = SearchSpace(graph, params.space)
    points = all_points(space)
    policies = space.decode(points)
    spec = replace(
        EvaluationSpec.of(params), prepared=root / "prepared", baseline=root / "baseline"
    )
    store = Store(root / "evaluations.sqlite")
    asked = probes(space)
    total = len(asked) + repetitions * len(policies)
    found: list[list[Evaluation]] = []
    with (
        store.exclusive(),
        LocalExecutor(jobs) as executor,
        bar(total, "measuring policies", "policy") as shown,
    ):
        places = Measurer(spec, store, executor, shown).divergences(
            [probe_policy(space, probe) for probe in asked]
        )
        for seed in range(repetitions):
            found.append(Measurer(replace(spec, seed=seed), store, executor, shown)(policies))
    TABLES.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(root / "baseline" / "graph.json", GRAPH)
    save_divergences(SENSITIVITIES, [(p, d.value) for p, d in zip(asked, places, strict=True)])
    write(space, policies, found)


def baseline(params: Params, root: Path) -> NetworkGraph:
    """Prepare the data and train the baseline in a folder of its own, once."""
    prepared, folder = root / "prepared", root / "baseline"
    if (folder / "model.safetensors").exists():
        return NetworkGraph.load(folder / "graph.json")
    torch.set_num_threads(params.pretrain.threads)
    info = prepare(params.data, params.seed, prepared, params.pretrain.batch_size)
    dataset = Dataset.open(prepared, torch.device(DEVICE), params.data.workers)
    with seeded(params.seed):
        model = build(params.model, len(info.classes), info.input_shape)
    graph = trace(model, info.input_shape, len(info.classes))
    trainer = Pretrainer(params, Folders(prepared, folder, root / "progress"))
    score = trainer.run(model, dataset)
    save_baseline(folder, model, graph)
    trainer.finish()
    print(f"baseline: {100 * score:.1f} % on the search split")
    return graph


def write(
    space: SearchSpace, policies: Sequence[Policy], found: Sequence[Sequence[Evaluation]]
) -> None:
    """Write one row a policy; a failed measurement scores 0, as it would in use."""
    bops = CostModel(space)(space.encode(list(policies))).bops.round().to(torch.int64).tolist()
    rows = []
    for index, (policy, cost) in enumerate(zip(policies, bops, strict=True)):
        own = [repetition[index] for repetition in found]
        rows.append(
            {
                **policy.to_row(),
                "cost_bops": cost,
                **{f"score/{i}": e.score or 0.0 for i, e in enumerate(own)},
                **{f"soft_score/{i}": e.soft_score or 0.0 for i, e in enumerate(own)},
            }
        )
    pd.DataFrame(rows).to_csv(CSV, index=False, float_format="%.5f", lineterminator="\n")
