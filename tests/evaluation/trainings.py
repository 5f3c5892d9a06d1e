"""Small trainings, for any number of processes.

As a script, under torchrun: python trainings.py OUTPUT DATA NAME... writes what each process has
after each of them to OUTPUT/NAME.RANK.json, and its network to OUTPUT/NAME.RANK.safetensors.
"""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from seernet.compression import calibrate, compress, recalibrate_norms
from seernet.config import FinetuneConfig, ModelConfig, TrainConfig
from seernet.data import Augment, Dataset
from seernet.distributed import joined
from seernet.evaluation.together import Together, fit_together, score_together
from seernet.models import build, trace
from seernet.policy import Policy
from seernet.stage import run
from seernet.training import Plan, make_task, reproducible, seeded

CPU = torch.device("cpu")


class Frozen(nn.BatchNorm2d):
    """Batch norm that keeps its statistics."""

    def train(self, mode=True):
        return super().train(False)


class Sparing(nn.Module):
    """A network with a weight that nothing depends on."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.spare = nn.Linear(3, 3)

    def forward(self, images):
        return self.layers(images)


def convolutions(norm, classes=10, side=8):
    """Two layers for gray images."""
    features = 8 * (side // 2) ** 2
    layers = [nn.Conv2d(1, 8, 3, padding=1, bias=False), norm(8), nn.ReLU(), nn.AvgPool2d(2)]
    return Sparing(*layers, nn.Flatten(), nn.Linear(features, classes))


def plain(data):
    """As the baseline is trained; two processes do not divide the batch, nor the last one."""
    dataset = Dataset.open(data / "digits", CPU, workers=0)
    config = TrainConfig(epochs=3, batch_size=63, learning_rate=0.1)
    return convolutions(FrozenBatchNorm2d), dataset, Plan(config, Augment(1), 3)


def norms(data):
    """The same with batch statistics."""
    _, dataset, plan = plain(data)
    images = dataset.subset("train", 64, 0)
    return (
        convolutions(nn.BatchNorm2d),
        dataset,
        replace(plan, before_score=lambda model: recalibrate_norms(model, images)),
    )


def files(data):
    """Images that are read from files."""
    dataset = Dataset.open(data / "files", CPU, workers=0)
    config = TrainConfig(epochs=2, batch_size=7, learning_rate=0.05)
    network = convolutions(FrozenBatchNorm2d, classes=2, side=14)
    return network, dataset, Plan(config, Augment(flip=True), 1)


def quantized(data):
    """As a compressed network is finetuned, by a teacher, with learned steps."""
    dataset = Dataset.open(data / "digits", CPU, workers=0)
    shape = dataset.info.input_shape
    teacher = build(ModelConfig(name="resnet20", arguments={"width": 4}), 10, shape).eval()
    graph = trace(teacher, shape)
    bits = {layer.name: 4 for layer in graph.layers}
    network = compress(teacher, Policy({graph.groups[0].name: 0.5}, bits, bits), graph)
    calibrate(network, dataset.subset("train", 64, 0))
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = Frozen
    config = FinetuneConfig(
        epochs=2, batch_size=99, learning_rate=0.05, step_learning_rate=0.01, distillation=0.3
    )
    return network, dataset, Plan(config, Augment(1), 3, teacher=teacher)


def boxes(data):
    """A detector, taught by one whose predictions vary more than those of first weights."""
    dataset = Dataset.open(data / "boxes", CPU, workers=0)
    detector = ModelConfig(name="small_ssd", arguments={"width": 8})
    network, teacher = (
        build(detector, len(dataset.info.classes), dataset.info.input_shape, "detection")
        for _ in range(2)
    )
    for weight in teacher.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    config = FinetuneConfig(epochs=1, batch_size=99, learning_rate=0.01, distillation=0.1)
    return network, dataset, Plan(config, Augment(flip=True), 1, teacher=teacher)


def train(team, name, data, **changes):
    """Make one of these trainings; what the process has in the end."""
    with seeded(0):
        network, dataset, plan = globals()[name](data)
    rows = []
    plan = replace(plan, on_epoch=rows.append, **changes)
    first = score_together(team, network.eval(), dataset, "search", make_task(dataset.info))
    fitted = fit_together(team, network, dataset, plan)
    last = score_together(team, network, dataset, "search", make_task(dataset.info))
    found = []
    if dataset.info.task == "detection":
        five = dataset.subset("train", 5, 0)
        judged = network if team.size == 1 else Together(network, team)
        found = [{key: v.tolist() for key, v in each.items()} for each in judged.detect(five)]
    return network, {
        "found": found,
        "first": first,
        "last": last,
        "history": fitted.history,
        "best": fitted.search_score,
        "told": len(rows),
    }


def killed(rank, epoch):
    """What kills a process before it scores an epoch."""
    calls = 0

    def before_score(_):
        nonlocal calls
        calls += 1
        if calls == epoch and rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    return before_score


def main():
    output, data, *names = sys.argv[1:]
    output = Path(output)
    reproducible(1)
    with joined("cpu") as team:
        for name in names:
            changes = {}
            kind, _, how = name.partition("-")
            if how in ("kept", "killed"):
                changes["checkpoint"] = output / "progress" / f"{kind}.safetensors"
            if how == "killed":
                changes["before_score"] = killed(team.rank, 2)
            if how == "different":
                changes["checkpoint"] = output / "progress" / f"{kind}-{team.rank}.safetensors"
            network, found = train(team, kind, Path(data), **changes)
            place = output / f"{name}.{team.rank}"
            state = {k: v.contiguous() for k, v in network.state_dict().items()}
            save_file(state, f"{place}.safetensors")
            Path(f"{place}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    run(main)
