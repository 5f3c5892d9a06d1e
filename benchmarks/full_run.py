"""How long does a whole run of a parameters file take, on paper?

Counts what each stage trains, scores and decodes, from the parameters and the network's search
space, and divides by rates. The default rates are those of a ResNet-50 on an A100, and of one core;
`docs/scaling.md` says where they come from. No weights are fetched.

    python benchmarks/full_run.py imagenet-resnet50
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass

from _shared import ROOT, markdown

from seernet.config import Params, load
from seernet.errors import SeerNetError
from seernet.models import build, trace
from seernet.policy import SearchSpace
from seernet.policy.sensitivity import Probe, probes

UNIFORM = 8  # candidates of a budget that the stage `baseline` measures, at most
RIVALS = 2
SETUP = 6.0  # s, to calibrate and compress a network and to record its training step; assumed
PLACE = 3.0  # s, to calibrate and compress a network in one place; assumed


@dataclass(frozen=True)
class Rates:
    """Images a second, of one GPU or of one core."""

    training: float
    scoring: float
    teaching: float
    decoding: float
    exporting: float


@dataclass(frozen=True)
class Images:
    """How many there are of each split."""

    train: int
    search: int
    test: int


@dataclass(frozen=True)
class Phase:
    """Part of a stage that keeps GPU and cores busy at the same time.

    Attributes:
        gpu: Seconds of one GPU.
        cores: Seconds of one core.
    """

    gpu: float = 0.0
    cores: float = 0.0


def hours(phases: Iterable[Phase], cores: int) -> float:
    """Time of one GPU with so many cores."""
    return sum(max(phase.gpu, phase.cores / cores) for phase in phases) / 3600


def stages(
    params: Params, places: list[Probe], images: Images, rates: Rates
) -> dict[str, list[Phase]]:
    """What each stage that takes more than minutes does."""
    short, long = params.sample.evaluation, params.finetune

    def trained(count: float, taught: bool) -> Phase:
        gpu = count / rates.training + taught * count / rates.teaching
        return Phase(gpu, count / rates.decoding)

    def scored(count: float) -> Phase:
        return Phase(count / rates.scoring, count / rates.decoding)

    def measured(policies: int) -> list[Phase]:
        count = policies * short.steps * min(short.batch_size, images.train)
        taught = short.distillation > 0
        return [
            Phase(gpu=policies * SETUP),
            trained(count, taught),
            scored(policies * images.search),
        ]

    def finetuned(networks: int) -> list[Phase]:
        epochs = networks * long.epochs
        return [
            Phase(gpu=networks * SETUP),
            trained(epochs * images.train, long.distillation > 0),
            scored(epochs * images.search + networks * images.test),
        ]

    # Statistics and divergence; pruned networks estimate their statistics once more.
    passes = sum(3 if place.kind == "pruning_ratio" else 2 for place in places)
    budgets, seeds = len(params.budgets), len(long.seeds)
    chosen = params.sample.evaluations
    epochs = params.pretrain.epochs
    return {
        "prepare": [Phase(cores=(images.train + images.search + images.test) / rates.decoding)],
        "pretrain": [trained(epochs * images.train, False), scored(epochs * images.search)],
        f"sample: {len(places)} single places": [
            Phase(len(places) * PLACE + passes * short.calibration_images / rates.scoring)
        ],
        f"sample: {chosen} chosen policies": measured(chosen),
        f"sample: {chosen} random policies, for the rival": measured(chosen),
        f"baseline: at most {UNIFORM * budgets} uniform candidates": measured(UNIFORM * budgets),
        f"finetune: {budgets * seeds} networks": finetuned(budgets * seeds),
        f"baseline: {RIVALS * budgets * seeds} networks": finetuned(RIVALS * budgets * seeds),
        f"export: {budgets} networks": [Phase(cores=budgets * images.test / rates.exporting)],
    }


def main() -> None:
    """Print hours, stage by stage."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("preset", help="name of a file of `presets/`, of a classifier")
    parser.add_argument("--train", type=int, default=1_281_167, help="images below train/")
    parser.add_argument("--test", type=int, default=50_000, help="images of the test split")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--evaluations", type=int, help="instead of sample.evaluations")
    parser.add_argument("--cores", type=int, nargs="+", default=[8, 24], help="for each GPU")
    for name, default, of in [
        ("training", 1650, "of a GPU, with fake quantization"),
        ("scoring", 4900, "of a GPU, with fake quantization"),
        ("teaching", 7400, "of a GPU: outputs of the baseline"),
        ("decoding", 76, "of a core"),
        ("exporting", 1.4, "of a core: in float64, and by ONNX Runtime"),
    ]:
        parser.add_argument(f"--{name}", type=float, default=default, help=f"images/s {of}")
    arguments = parser.parse_args()
    numbers = [value for value in vars(arguments).values() if isinstance(value, int | float)]
    if min(numbers + arguments.cores) <= 0:
        parser.error("counts, cores and rates have to be above 0")
    try:
        rows = table(arguments)
    except SeerNetError as error:
        parser.error(str(error))
    header = ["stage", "GPU, h", "cores, core-h"]
    print(markdown([*header, *(f"with {n} cores, h" for n in arguments.cores)], rows))


def table(arguments: argparse.Namespace) -> list[list[str]]:
    """Hours, stage by stage; see `main`."""
    params = load(ROOT / "presets" / f"{arguments.preset}.yaml")
    if arguments.evaluations:
        section = params.sample.model_copy(update={"evaluations": arguments.evaluations})
        params = params.model_copy(update={"sample": section})
    search = round(arguments.train * params.data.search_fraction)
    images = Images(arguments.train - search, search, arguments.test)
    side = params.data.image_size or 32
    bare = params.model.model_copy(update={"weights": None, "checkpoint": None})
    shape = (3, side, side)
    graph = trace(build(bare, arguments.classes, shape), shape, arguments.classes)
    places = probes(SearchSpace(graph, params.space))
    rates = Rates(**{name: getattr(arguments, name) for name in Rates.__annotations__})
    found = stages(params, places, images, rates)
    found["**all**"] = [phase for phases in found.values() for phase in phases]
    return [
        [
            stage,
            f"{hours(phases, 1_000_000):.1f}",
            f"{sum(phase.cores for phase in phases) / 3600:.0f}",
            *(f"{hours(phases, cores):.1f}" for cores in arguments.cores),
        ]
        for stage, phases in found.items()
    ]


if __name__ == "__main__":
    main()
