"""Finetuning of one policy's network, the same for every method that is compared.

The best epoch is chosen on the search split; the test split is read once, for the chosen network.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from seernet.compression import (
    as_packed,
    build_compressed,
    count,
    kept_channels,
    recalibrate_norms,
)
from seernet.config import Params
from seernet.data import Augment, Dataset
from seernet.distributed import ALONE, Team
from seernet.errors import ArtifactError, PolicyError, SeerNetError
from seernet.evaluation.baseline import inputs, load_baseline
from seernet.evaluation.settling import settle
from seernet.evaluation.together import fit_together, score_together
from seernet.graph import NetworkGraph
from seernet.parallel import LocalExecutor, completed
from seernet.policy import CostModel, Policy
from seernet.store import code_digest, digest, files_digest
from seernet.training import Plan, make_task, reproducible, train_macs

CODE = (
    "compression",
    "data",
    "evaluation/baseline",
    "evaluation/finetuning",
    "evaluation/settling",
    "evaluation/shares",
    "evaluation/together",
    "graph",
    "models",
    "policy/policy",
    "training",
)


@dataclass(frozen=True)
class Folders:
    """Where a finetuning finds its inputs, and keeps its progress; the last is its own."""

    prepared: Path
    baseline: Path
    progress: Path


@dataclass(frozen=True)
class Job:
    """One policy to finetune with one seed.

    Attributes:
        policy: The policy.
        seed: The seed.
        label: Name on the progress bar.
        output: Folder for the network, or None.
        line: Line of the progress bar, from 0, where several show one.
    """

    policy: Policy
    seed: int
    label: str
    output: Path | None = None
    line: int = 0


@dataclass(frozen=True)
class Run:
    """Outcome of one finetuning.

    Attributes:
        seed: Its seed.
        search_score: Score on the search split after the best epoch, in [0, 1].
        test: The same network's metrics on the test split; `score` is the one that counts.
        best_epoch: Epoch (from 1) whose network was kept; 0 is the network before training.
        history: One row an epoch; see `Fit`.
    """

    seed: int
    search_score: float
    test: dict[str, float]
    best_epoch: int
    history: list[dict[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """What is reported of it: all but the history; metrics as `test_score`, `test_top5`."""
        return {
            "seed": self.seed,
            "search_score": self.search_score,
            "best_epoch": self.best_epoch,
            **{f"test_{name}": value for name, value in self.test.items()},
        }


class Finetuner:
    """Finetunes policies of one baseline.

    Args:
        params: All parameters; `finetune`, `data`, `model`, `seed` count.
        folders: Prepared data, baseline, progress files.
        team: The processes that finetune together; all do the same, and one writes.
    """

    def __init__(self, params: Params, folders: Folders, team: Team = ALONE) -> None:
        reproducible(params.finetune.threads)
        self.team = team
        self.params = params
        self.folders = folders
        self.device = torch.device(params.device)
        self.dataset = Dataset.open(folders.prepared, self.device, params.data.workers)
        self.graph = NetworkGraph.load(folders.baseline / "graph.json")
        baseline = load_baseline(folders.baseline, params.model, self.dataset.info)
        self.baseline = baseline.to(self.device)
        self.task = make_task(self.dataset.info)
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

    def test(self, network: nn.Module) -> dict[str, float]:
        """Metrics on the test split, in float64: `score`, and what else the task knows (`top5`)."""
        found = score_together(self.team, network, self.dataset, "test", self.task)
        return {name: value for name, value in found.items() if name != "soft_score"}

    def costs(self, policy: Policy, cost: CostModel) -> dict[str, Any]:
        """Costs counted on a policy's network, and the compute of finetuning it with all seeds.

        Args:
            policy: The policy.
            cost: The cost model, held against the network itself.

        Raises:
            SeerNetError: If cost model and network disagree.
        """
        keep = kept_channels(self.baseline, policy, self.graph)
        network = build_compressed(self.baseline, policy, self.graph, keep)
        counted = count(network, self.graph.input_shape)
        predicted = int(cost(cost.space.encode([policy])).bops.round())
        if predicted != counted.bops:
            raise SeerNetError(
                f"the cost model says {predicted} BOPs for a policy whose network needs "
                f"{counted.bops}; this is a defect of ours, please report it with the model."
            )
        config = self.params.finetune
        teacher = int(cost.baseline().macs) if config.distillation else 0
        spent = train_macs(config, counted.macs, self.dataset.info.counts["train"], teacher)
        found = asdict(counted)
        found["cost_bops"] = found.pop("bops")
        return {**found, "train_macs": spent * len(config.seeds)}

    def run(self, job: Job) -> Run:
        """Finetune the network of one policy with one seed, and test it as it ships.

        A run that was interrupted goes on after its last finished epoch.

        Raises:
            TrainingError: If the loss is not a number.
        """
        keep = kept_channels(self.baseline, job.policy, self.graph)
        network = build_compressed(self.baseline, job.policy, self.graph, keep, self.images)
        key = digest([self._inputs, job.policy.to_dict(), job.seed])
        data = self.params.data
        plan = Plan(
            config=self.params.finetune,
            augment=Augment(data.crop_padding, data.flip),
            seed=int(digest([job.policy.to_dict(), self.params.seed, job.seed])[:8], 16),
            before_score=lambda model: recalibrate_norms(model, self.images),
            teacher=self.baseline,
            checkpoint=self.folders.progress / f"{key}.safetensors",
            label=f"{job.label}, seed {job.seed}",
            line=job.line,
        )
        fitted = fit_together(self.team, network, self.dataset, plan)
        settle(network, self.graph.input_shape)
        if job.output is not None and self.team.leads:
            save_network(job.output, f"seed-{job.seed}", network, job.policy, keep)
        return Run(
            job.seed,
            fitted.search_score,
            self.test(as_packed(network, self.graph.input_shape)),
            fitted.best_epoch,
            fitted.history,
        )

    def finish(self) -> None:
        """Remove the progress folder, once the results are written."""
        shutil.rmtree(self.folders.progress, ignore_errors=True)


def finetune(finetuner: Finetuner, jobs: Sequence[Job]) -> list[Run]:
    """Finetune policies side by side, in `sample.workers` processes; the runs are in their order.

    A team finetunes one after the other, each together; a single job needs no other process.

    Raises:
        SeerNetError: If a process died. Finished runs, and all epochs of others, are kept.
        TrainingError: If a loss is not a number.
    """
    jobs = [replace(job, line=line) for line, job in enumerate(jobs)]
    workers = min(finetuner.params.sample.workers, len(jobs))
    if workers <= 1 or finetuner.team.size > 1:
        return [finetuner.run(job) for job in jobs]
    tasks = [(finetuner.params, finetuner.folders, job) for job in jobs]
    with LocalExecutor(workers) as executor:
        done = dict(completed(executor, _finetune, tasks))
    return [done[index] for index in range(len(tasks))]


def _finetune(task: tuple[Params, Folders, Job]) -> Run:
    params, folders, job = task
    return _finetuner(params.model_dump_json(), folders).run(job)


@functools.lru_cache(maxsize=1)
def _finetuner(params: str, folders: Folders) -> Finetuner:
    return Finetuner(Params.model_validate_json(params), folders)


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


_DAMAGED = (
    *(OSError, ValueError, KeyError, TypeError, RuntimeError),
    *(SafetensorError, PolicyError),
)


def read_network(path: Path, baseline: nn.Module, graph: NetworkGraph) -> tuple[nn.Module, Policy]:
    """Restore what `save_network` wrote, in eval mode, and its policy.

    Raises:
        ArtifactError: If the file is missing, damaged, or of another baseline.
    """
    try:
        with safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
            policy = Policy.from_dict(json.loads(file.metadata()["policy"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        parts = {
            kind: {k.removeprefix(kind): v for k, v in tensors.items() if k.startswith(kind)}
            for kind in ("keep/", "network/")
        }
        network = build_compressed(baseline, policy, graph, parts["keep/"])
        network.load_state_dict(parts["network/"])
    except _DAMAGED as error:
        raise ArtifactError(
            f"{path} does not hold a finetuned network of this baseline ({error!r:.200}); run the "
            "finetune stage again."
        ) from error
    return network.eval(), policy
