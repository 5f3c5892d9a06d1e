"""Which parts of the finetuning recipe pay?

Each part is taken away (or, where the recipe lacks it, added), and the same networks are finetuned
with the same seeds: those of the budgets in `params.yaml`, and uniform 2- and 3-bit ones that are
not pruned. Scores are of the search split, differences are paired. Run the pipeline first, as far
as the policies; with `--record` it is enough to run `pretrain` with the parameters of that record.
A shorter schedule (`--epochs`) will do.

    dvc repro && python benchmarks/recipe.py
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import torch
from _shared import ROOT, markdown, write_summary
from torch import Tensor, nn

from seernet import artifacts
from seernet.compression import quantizer
from seernet.config import Params, load
from seernet.device import resolve
from seernet.evaluation import Finetuner, Folders, Job, finetuning
from seernet.graph import NetworkGraph
from seernet.policy import Policy
from seernet.progress import bar
from seernet.training import Recipe, make_optimizer

AVERAGED_OVER = 0.25  # of the schedule: half-life of the averaged weights
UNIFORM = (2, 3)
FIT = sys.modules["seernet.training.fit"]  # the package has a function of that name
LEARNED_STEP = quantizer.LearnedStep


@dataclass(frozen=True)
class Variant:
    """One change of the recipe: of its parameters, and of the code while it lasts."""

    changes: Callable[[Params], dict[str, Any]] = lambda _: {}
    patch: Callable[[], Any] = field(default=ExitStack)


def _decayed_steps(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    optimizer = make_optimizer(model, recipe)
    for group in optimizer.param_groups:
        group["weight_decay"] = recipe.weight_decay
    return optimizer


class _Unscaled:
    """The quantizer's function without the scale of the step's gradient."""

    @staticmethod
    def apply(x: Tensor, step: Tensor, low: int, high: int, _: float) -> Any:
        return LEARNED_STEP.apply(x, step, low, high, 1.0)


def _published_steps(rows: Tensor, _: int, high: int) -> Tensor:
    """LSQ's initial step, 2 <|x|> / sqrt(Q_P)."""
    return (2.0 * rows.abs().mean(dim=1) / high**0.5).clamp_min(1e-8)


def _constant(self: Recipe, step: int) -> float:
    return min(1.0, (step + 1) / max(1, self.warmup))


@contextmanager
def _averaged() -> Iterator[None]:
    """Score, and keep, exponential averages of the weights; training goes on without them."""

    def make(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
        optimizer = make_optimizer(model, recipe)
        parameters = list(model.parameters())
        mean = [parameter.detach().clone() for parameter in parameters]
        stash: list[Tensor] = []
        decay = 0.5 ** (1.0 / max(1.0, AVERAGED_OVER * recipe.steps))
        count = 0

        def follow(*_: Any) -> None:
            nonlocal count
            count += 1
            keep = min(decay, count / (count + 10.0))
            for average, parameter in zip(mean, parameters, strict=True):
                average.lerp_(parameter.detach(), 1.0 - keep)

        def back(module: nn.Module, *_: Any) -> None:
            if module.training and stash:
                for parameter, raw in zip(parameters, stash, strict=True):
                    parameter.data.copy_(raw)
                stash.clear()

        def show() -> None:
            if not stash:
                stash.extend(parameter.detach().clone() for parameter in parameters)
                for parameter, average in zip(parameters, mean, strict=True):
                    parameter.data.copy_(average)

        optimizer.register_step_post_hook(follow)
        model.register_forward_pre_hook(back)
        model.show_averages = show  # type: ignore[assignment]
        return optimizer

    recalibrate = finetuning.recalibrate_norms

    def shown(model: nn.Module, images: Tensor) -> None:
        model.show_averages()  # type: ignore[operator]
        recalibrate(model, images)

    with (
        mock.patch.object(FIT, "make_optimizer", make),
        mock.patch.object(finetuning, "recalibrate_norms", shown),
    ):
        yield


VARIANTS: dict[str, Variant] = {
    "as it is": Variant(),
    "distillation off": Variant(lambda _: {"distillation": 0.0}),
    "distillation 0.2": Variant(lambda _: {"distillation": 0.2}),
    "distillation 0.5": Variant(lambda _: {"distillation": 0.5}),
    "steps learn as fast as weights": Variant(
        lambda p: {"step_learning_rate": p.finetune.learning_rate}
    ),
    "weight decay of steps": Variant(
        patch=lambda: mock.patch.object(FIT, "make_optimizer", _decayed_steps)
    ),
    "gradient of steps not scaled": Variant(
        patch=lambda: mock.patch.object(quantizer, "LearnedStep", _Unscaled)
    ),
    "first steps as published": Variant(
        patch=lambda: mock.patch.object(quantizer, "_least_squares_step", _published_steps)
    ),
    "no warm-up": Variant(lambda _: {"warmup_epochs": 0.0}),
    "constant learning rate": Variant(patch=lambda: mock.patch.object(Recipe, "factor", _constant)),
    "norms not re-estimated": Variant(
        patch=lambda: mock.patch.object(finetuning, "recalibrate_norms", lambda *_: None)
    ),
    "averaged weights": Variant(patch=_averaged),
}


def policies(params: Params, record: str | None) -> dict[str, Policy]:
    """What is finetuned, by name; the budgets' policies are the pipeline's, or a record's."""
    graph = NetworkGraph.load(artifacts.GRAPH)
    found = {}
    for budget in params.budgets:
        if record:
            packed = ROOT / "docs" / "results" / record / "networks" / budget / "seed-0"
            document = json.loads((packed / "model.json").read_text(encoding="utf-8"))["policy"]
        else:
            path = artifacts.POLICIES / f"{budget}.json"
            document = artifacts.read_json(path, f"optimize@{budget}")
        found[budget] = Policy.from_dict(document)
    for bits in UNIFORM:
        each = {layer.name: 8 if layer.edge else bits for layer in graph.layers}
        found[f"uniform {bits} bits"] = Policy({}, each, each)
    return found


def score(job: tuple[Params, str, Policy, int]) -> float:
    """Search score of one network, finetuned by one variant with one seed."""
    params, name, policy, seed = job
    variant = VARIANTS[name]
    section = params.finetune.model_copy(update=variant.changes(params))
    with TemporaryDirectory(prefix="seernet-benchmark-") as folder, variant.patch():
        folders = Folders(artifacts.PREPARED, artifacts.BASELINE, Path(folder))
        finetuner = Finetuner(params.model_copy(update={"finetune": section}), folders)
        with mock.patch.object(Finetuner, "test", lambda *_: {"score": float("nan")}):
            return finetuner.run(Job(policy, seed, name)).search_score


def main() -> None:
    """Finetune everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="of each network (default 3)")
    parser.add_argument("--epochs", type=int, help="instead of finetune.epochs")
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side (default 2)")
    parser.add_argument("--record", help="folder of docs/results/ whose policies are taken")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--networks", nargs="+", help="budgets, `uniform 2 bits`, `uniform 3 bits`")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    params = resolve(load())
    if arguments.epochs:
        section = params.finetune.model_copy(update={"epochs": arguments.epochs})
        params = params.model_copy(update={"finetune": section})
    try:
        chosen = policies(params, arguments.record)
    except FileNotFoundError as error:
        parser.error(f"the record `{arguments.record}` lacks {error.filename}")
    if unknown := set(arguments.networks or ()) - set(chosen):
        parser.error(f"no network {sorted(unknown)}; there are {list(chosen)}")
    chosen = {name: chosen[name] for name in arguments.networks or chosen}
    names = list(dict.fromkeys(["as it is", *arguments.variants]))
    jobs = [
        (params, name, policy, seed)
        for name in names
        for policy in chosen.values()
        for seed in range(arguments.seeds)
    ]
    found: list[float] = []
    with (
        ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool,
        bar(len(jobs), "finetuning", "run") as shown,
    ):
        for value in pool.map(score, jobs):
            found.append(value)
            shown.update()
    each = len(chosen) * arguments.seeds
    scores = {name: found[i * each : (i + 1) * each] for i, name in enumerate(names)}
    summary = {"networks": list(chosen), "seeds": arguments.seeds, "scores": scores}
    write_summary("recipe", summary)
    print(render(summary))


def render(summary: dict[str, Any]) -> str:
    """Mean differences to the recipe as it is, in points, with standard errors, by network."""
    seeds, networks = summary["seeds"], summary["networks"]
    plain = summary["scores"]["as it is"]
    rows = []
    for name, scores in summary["scores"].items():
        gains = [100.0 * (a - b) for a, b in zip(scores, plain, strict=True)]
        cells = [
            f"{statistics.mean(gains[i * seeds : (i + 1) * seeds]):+.2f}"
            for i in range(len(networks))
        ]
        error = statistics.stdev(gains) / len(gains) ** 0.5
        mean = f"{statistics.mean(gains):+.2f} ± {error:.2f}"
        rows.append(
            [name, mean, *cells]
            if name != "as it is"
            else [name, f"{100 * statistics.mean(scores):.2f} %"]
            + [
                f"{100 * statistics.mean(scores[i * seeds : (i + 1) * seeds]):.2f} %"
                for i in range(len(networks))
            ]
        )
    return markdown(["recipe", "all", *networks], rows)


if __name__ == "__main__":
    main()
