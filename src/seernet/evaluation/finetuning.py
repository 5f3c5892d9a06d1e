"""Finetuning of one policy's network, the same for every method that is compared.

The best epoch is chosen on the search split; the test split is read once, for the chosen network.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from seernet.compression import build_compressed, count, kept_channels, recalibrate_norms
from seernet.config import Params
from seernet.data import Augment, Dataset
from seernet.errors import SeerNetError
from seernet.evaluation.baseline import inputs, load_baseline
from seernet.graph import NetworkGraph
from seernet.policy import CostModel, Policy, SearchSpace
from seernet.store import code_digest, digest, files_digest
from seernet.training import (
    EVALUATION_BATCH,
    Plan,
    fit,
    make_task,
    score,
    train_macs,
)

CODE = (
    "compression",
    "data",
    "evaluation/baseline",
    "evaluation/finetuning",
    "graph",
    "models",
    "policy",
    "training",
)
EpochCallback = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Folders:
    """Where a finetuning finds its inputs, and keeps its progress; the last is its own."""

    prepared: Path
    baseline: Path
    progress: Path


class Finetuner:
    """Finetunes policies of one baseline.

    Args:
        params: All parameters; `finetune`, `data`, `model`, `seed` count.
        folders: Prepared data, baseline, progress files.
    """

    def __init__(self, params: Params, folders: Folders) -> None:
        torch.set_num_threads(params.finetune.threads)
        self.params = params
        self.folders = folders
        self.device = torch.device(params.device)
        self.dataset = Dataset.open(folders.prepared, self.device, params.data.workers)
        self.graph = NetworkGraph.load(folders.baseline / "graph.json")
        baseline = load_baseline(folders.baseline, params.model, self.dataset.info)
        self.baseline = baseline.to(self.device)
        self.task = make_task(self.dataset.info.task)
        self.images = self.dataset.subset("train", params.finetune.calibration_images, params.seed)
        self._inputs = digest(
            [
                inputs(folders.prepared, params.data, params.model, params.device),
                files_digest(folders.baseline),
                params.finetune.model_dump(exclude={"seeds"}),
                params.seed,
                code_digest(CODE),
            ]
        )

    def test_score(self, network: nn.Module) -> float:
        """Score on the test split."""
        loader = self.dataset.loader("test", EVALUATION_BATCH)
        return score(network, loader.epoch(0), self.task)["score"]

    def run(
        self,
        policy: Policy,
        cost: CostModel,
        label: str,
        output: Path | None = None,
        on_epoch: EpochCallback | None = None,
        line: int = 0,
    ) -> dict[str, Any]:
        """Finetune the network of one policy with each seed, and test it.

        Args:
            policy: The policy.
            cost: The cost model, held against the network itself.
            label: Name on the progress bar.
            output: Folder for the networks, or None.
            on_epoch: Called with the seed and each epoch's row.
            line: Line of the progress bar, where several show one.

        Returns:
            Costs counted on the network, the training's compute, and one entry a seed in `runs`.

        Raises:
            SeerNetError: If cost model and network disagree.
            TrainingError: If the loss is not a number.
        """
        keep = kept_channels(self.baseline, policy, self.graph)
        network = build_compressed(self.baseline, policy, self.graph, keep)
        counted = count(network, self.graph.input_shape)
        predicted = int(cost(cost.space.encode([policy])).bops.round())
        if predicted != counted.bops:
            raise SeerNetError(
                f"the cost model says {predicted} BOPs for `{label}`, its network needs "
                f"{counted.bops}; this is a defect of ours, please report it with the model."
            )
        runs = []
        for seed in self.params.finetune.seeds:
            network = build_compressed(self.baseline, policy, self.graph, keep, self.images)
            runs.append(self._run(network, policy, seed, label, on_epoch, line))
            if output is not None:
                save_network(output, f"seed-{seed}", network, policy, keep)
        config = self.params.finetune
        spent = train_macs(config, counted.macs, self.dataset.info.counts["train"])
        costs = asdict(counted)
        costs["cost_bops"] = costs.pop("bops")
        return {**costs, "train_macs": spent * len(runs), "runs": runs}

    def _run(
        self,
        network: nn.Module,
        policy: Policy,
        seed: int,
        label: str,
        on_epoch: EpochCallback | None,
        line: int,
    ) -> dict[str, Any]:
        key = digest([self._inputs, policy.to_dict(), seed])
        checkpoint = self.folders.progress / f"{key}.safetensors"
        data = self.params.data
        plan = Plan(
            config=self.params.finetune,
            augment=Augment(data.crop_padding, data.flip),
            seed=int(digest([policy.to_dict(), self.params.seed, seed])[:8], 16),
            before_score=lambda model: recalibrate_norms(model, self.images),
            teacher=self.baseline,
            checkpoint=checkpoint,
            on_epoch=(lambda row: on_epoch(seed, row)) if on_epoch is not None else None,
            label=f"{label}, seed {seed}",
            line=line,
        )
        fitted = fit(network, self.dataset, plan)
        return {
            "seed": seed,
            "search_score": fitted.search_score,
            "test_score": self.test_score(network),
            "best_epoch": fitted.best_epoch,
        }

    def finish(self) -> None:
        """Remove the progress folder, once the results are written."""
        shutil.rmtree(self.folders.progress, ignore_errors=True)


@dataclass(frozen=True)
class Job:
    """One policy to finetune in a process of its own.

    Attributes:
        params: All parameters; see `Finetuner`.
        folders: Where its inputs lie; jobs side by side may share them.
        policy: The policy.
        label: Name on the progress bar.
        line: Line of the progress bar, from 0.
    """

    params: Params
    folders: Folders
    policy: Policy
    label: str
    line: int


def finetune_policy(job: Job) -> dict[str, Any]:
    """Finetune one policy in a worker process; see `Finetuner.run`."""
    finetuner = Finetuner(job.params, job.folders)
    cost = CostModel(SearchSpace(finetuner.graph, job.params.space))
    return finetuner.run(job.policy, cost, job.label, line=job.line)


def save_network(
    folder: Path, name: str, network: nn.Module, policy: Policy, keep: dict[str, torch.Tensor]
) -> None:
    """Write a compressed network: its tensors, the channels it keeps, and its policy.

    Together with the baseline's code and graph this is all `build_compressed` needs to restore it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"network/{k}": v.detach() for k, v in network.state_dict().items()}
    tensors |= {f"keep/{group}": mask for group, mask in keep.items()}
    # Copies: safetensors refuses tensors that share memory, as tied weights do.
    tensors = {key: tensor.cpu().contiguous().clone() for key, tensor in tensors.items()}
    metadata = {"policy": json.dumps(policy.to_dict(), sort_keys=True)}
    save_file(tensors, folder / f"{name}.safetensors", metadata=metadata)
