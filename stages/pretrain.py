"""Stage `pretrain`: train the baseline, or load a checkpoint or published weights, and trace it."""

import logging
from collections import defaultdict
from contextlib import nullcontext
from pathlib import Path

import torch
from _shared import own_folders
from torch import nn

from seernet import artifacts
from seernet.config import Params, load
from seernet.curves import Curves
from seernet.data import Dataset
from seernet.device import resolve
from seernet.distributed import Team, joined, launch
from seernet.errors import ModelError
from seernet.evaluation import Pretrainer, save_baseline
from seernet.graph import NetworkGraph
from seernet.models import build, trace
from seernet.policy import CostModel, LatencyTable, checked_space
from seernet.stage import run
from seernet.training import make_task, reproducible, score, scored, seeded, train_macs

logger = logging.getLogger("pretrain")

NEAR_CHANCE = 1.2  # times the score of a guess


def main() -> None:
    """Write `models/baseline/`, its metrics and its training curve."""
    params = resolve(load())
    with joined(params.device) as team:
        pretrain(params, team)


def pretrain(params: Params, team: Team) -> None:
    """Make the baseline, by all processes of a team; the one that leads writes it."""
    reproducible(params.pretrain.threads)
    dataset = Dataset.open(artifacts.PREPARED, torch.device(params.device), params.data.workers)
    info = dataset.info
    with seeded(params.seed):
        model = build(params.model, len(info.classes), info.input_shape, info.task)
    graph = trace(model, info.input_shape, len(info.classes))
    name_what_stays_whole(graph)
    name_what_is_tied(model)
    cost = CostModel(checked_space(graph, params)).baseline()
    check_exportable(params, model)
    check_latency_table(params)
    model.to(params.device)
    folders = own_folders("pretrain")
    trainer = Pretrainer(params, folders, team)
    task = make_task(info)
    spent = 0
    if params.model.checkpoint or (params.model.weights and not params.pretrain.epochs):
        if not team.leads:
            return  # nothing is trained
        search = score(model, scored(dataset, "search"), task)["score"]
        Curves(artifacts.TRAINING / "pretrain").close()
    else:
        with Curves(artifacts.TRAINING / "pretrain") if team.leads else nullcontext() as curves:
            search = trainer.run(model, dataset, curves.log if curves else None)
        spent = train_macs(params.pretrain, int(cost.macs), dataset.info.counts["train"])
    if not team.leads:
        return
    save_baseline(artifacts.BASELINE, model, graph)
    metrics = {
        "metric": task.metric,
        "search_score": search,
        "baseline_bops": int(cost.bops),
        "baseline_macs": int(cost.macs),
        "baseline_parameters": int(cost.parameters),
        "baseline_size_bytes": int(cost.size_bytes),
        "train_macs": spent,
    }
    artifacts.write_json(artifacts.METRICS / "pretrain.json", metrics)
    trainer.finish()
    logger.info("baseline: search score %.4f, %.4g BOPs", search, metrics["baseline_bops"])
    if search <= NEAR_CHANCE * task.guess:
        logger.warning(
            "the baseline scores hardly better than chance: nothing that follows can be good; "
            "check its weights (model.checkpoint, data.mean and data.std), or train it for longer."
        )


def check_exportable(params: Params, model: nn.Module) -> None:
    """Refuse, before hours are spent, what `export@B` would refuse after them.

    Raises:
        ModelError: If `model.onnx` is wanted of a detector that cannot be written as one.
    """
    if params.export.onnx and not getattr(model, "decodable", True):
        raise ModelError(
            f"model.name {params.model.name!r} cannot be exported to ONNX, of detectors only SSD "
            "and RetinaNet can; set `export.onnx: false`, which leaves the packed file."
        )


def check_latency_table(params: Params) -> None:
    """Read another machine's latency table, if one is named, as `latency` will hours later.

    Raises:
        ArtifactError: If it is missing, damaged, or of another version.
    """
    if params.latency.table not in ("none", "measure"):
        LatencyTable.load(Path(params.latency.table))


def name_what_stays_whole(graph: NetworkGraph) -> None:
    """Tell the user which parts compression leaves alone, and why."""
    for part in graph.whole:
        if part.macs:
            logger.warning("%s stays whole at 32 bits: %s", part.name or "a part", part.reason)
    for name, reason in graph.kept.items():
        if name == "all":
            logger.warning("no channels are pruned, only bit-widths are searched: %s", reason)
        else:
            logger.warning("channels of %s are not pruned: %s", name, reason)


def name_what_is_tied(model: nn.Module) -> None:
    """Tell the user which weights layers share, since compression lets each have its own."""
    names = defaultdict(list)
    for layer, module in model.named_modules():
        for name, weight in module.named_parameters(layer, recurse=False):
            names[id(weight)].append(name)
    for tied in names.values():
        if len(tied) > 1:
            logger.warning(
                "%s are one tensor: each counts in costs, and they part when compressed.",
                ", ".join(tied),
            )


if __name__ == "__main__":
    launch()
    run(main)
