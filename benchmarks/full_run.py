"""What does a whole run of a parameters file need, on paper?

Counts the images that each stage decodes and computes, from the parameters and the network's search
space, and divides by rates a second: of training with fake quantization, of passing images forward
(quantized and not), and of decoding. The default rates are those of a ResNet-50 on one A100 with
eight cores; `docs/scaling.md` says where they come from. Trained weights are not fetched.

    python benchmarks/full_run.py imagenet-resnet50
"""

from __future__ import annotations

import argparse
from dataclasses import astuple, dataclass

from _shared import ROOT, markdown

from seernet.config import Params, load
from seernet.models import build, trace
from seernet.policy import SearchSpace
from seernet.policy.sensitivity import probes

UNIFORM = 8  # candidates of each budget, at most, that the stage `baseline` measures
METHODS = 3  # SeerNet, uniform, random search
PLACE = 3  # passes of each calibration image for a single place: statistics, steps, divergence
SETUP_SECONDS = 6.0  # to calibrate, compress and record the training step; assumed


@dataclass(frozen=True)
class Work:
    """Images, in the ways they cost.

    Attributes:
        trained: Forward and backward through a compressed network.
        scored: Forward through a compressed network.
        taught: Forward through the baseline, for distillation.
        decoded: Read from files.
        setups: Networks that are built and calibrated.
    """

    trained: float = 0.0
    scored: float = 0.0
    taught: float = 0.0
    decoded: float = 0.0
    setups: float = 0.0

    def __mul__(self, times: float) -> Work:
        return Work(*(times * value for value in astuple(self)))


@dataclass(frozen=True)
class Rates:
    """Images a second, of one GPU and the cores that feed it."""

    training: float
    scoring: float
    forward: float
    decoding: float

    def hours(self, work: Work) -> float:
        """Computing and decoding overlap: the longer one counts."""
        computing = (
            work.trained / self.training
            + work.scored / self.scoring
            + work.taught / self.forward
            + work.setups * SETUP_SECONDS
        )
        return max(computing, work.decoded / self.decoding) / 3600


def needed(params: Params, places: int, train: int, search: int, test: int) -> dict[str, Work]:
    """The work of each stage that is more than minutes."""
    short, long = params.sample.evaluation, params.finetune
    images = min(short.steps * short.batch_size, short.steps * train)
    measurement = Work(
        trained=images,
        scored=search,
        taught=images * (short.distillation > 0),
        decoded=images + search,
        setups=1,
    )
    passes = long.epochs * train
    finetuning = Work(
        trained=passes,
        scored=long.epochs * search + test,
        taught=passes * (long.distillation > 0),
        decoded=passes + long.epochs * search + test,
        setups=1,
    )
    networks = METHODS * len(params.budgets) * len(long.seeds)
    epochs = params.pretrain.epochs
    return {
        "prepare": Work(decoded=train + search + test),
        "pretrain": Work(
            trained=epochs * train, scored=epochs * search, decoded=epochs * (train + search)
        ),
        f"sample, {places} single places": Work(
            scored=places * PLACE * short.calibration_images, setups=places
        ),
        f"sample, {2 * params.sample.evaluations} policies": (
            measurement * (2 * params.sample.evaluations)
        ),
        f"uniform, {UNIFORM * len(params.budgets)} policies": (
            measurement * (UNIFORM * len(params.budgets))
        ),
        f"finetune, {networks} networks": finetuning * networks,
    }


def main() -> None:
    """Print images and hours, stage by stage."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("preset", help="name of a file of `presets/`, of a classifier")
    parser.add_argument("--train", type=int, default=1_281_167, help="images of train/")
    parser.add_argument("--test", type=int, default=50_000, help="images of the test split")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--evaluations", type=int, help="instead of sample.evaluations")
    parser.add_argument("--training-rate", type=float, default=1650, help="images/s")
    parser.add_argument("--scoring-rate", type=float, default=4900, help="images/s")
    parser.add_argument("--forward-rate", type=float, default=7400, help="images/s, not quantized")
    parser.add_argument("--decoding-rate", type=float, default=76, help="images/s of one core")
    parser.add_argument("--cores", type=int, nargs="+", default=[8, 24], help="for each GPU")
    arguments = parser.parse_args()
    params = load(ROOT / "presets" / f"{arguments.preset}.yaml")
    if arguments.evaluations:
        section = params.sample.model_copy(update={"evaluations": arguments.evaluations})
        params = params.model_copy(update={"sample": section})
    search = round(arguments.train * params.data.search_fraction)
    side = params.data.image_size or 32
    bare = params.model.model_copy(update={"weights": None, "checkpoint": None})
    shape = (3, side, side)
    graph = trace(build(bare, arguments.classes, shape), shape, arguments.classes)
    places = len(probes(SearchSpace(graph, params.space)))
    stages = needed(params, places, arguments.train - search, search, arguments.test)
    rows = []
    total = [0.0] * len(arguments.cores)
    for stage, work in stages.items():
        hours = [
            Rates(
                arguments.training_rate,
                arguments.scoring_rate,
                arguments.forward_rate,
                cores * arguments.decoding_rate,
            ).hours(work)
            for cores in arguments.cores
        ]
        total = [a + b for a, b in zip(total, hours, strict=True)]
        counts = (work.trained, work.scored + work.taught, work.decoded)
        rows.append([stage, *(f"{1e-6 * n:.1f}" for n in counts), *(f"{h:.1f}" for h in hours)])
    rows.append(["all", "", "", "", *(f"{h:.1f}" for h in total)])
    header = ["stage", "M trained", "M forward only", "M decoded"]
    print(markdown([*header, *(f"h, {n} cores" for n in arguments.cores)], rows))


if __name__ == "__main__":
    main()
