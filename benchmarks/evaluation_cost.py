"""What does measuring one policy cost, and where does a training step's time go?

ResNet-20 at 32 x 32 pixels, batch 128 (scikit-learn's digits, enlarged: the pixels do not matter
to the time). The fast arithmetic is bfloat16, or float32 where the processor has no bfloat16. All
figures are ratios within one run:

- a policy's whole evaluation (compress, calibrate, train, score) over the same number of float32
  training steps of the uncompressed baseline, for random policies all over the cost range;
- a training step with fake quantization over one without, at no pruning, both in it;
- two worker processes of one thread each against one of two threads;
- a step's arithmetic against the machine's rate in a large matrix product, and what the profile
  says is in between.

    python benchmarks/evaluation_cost.py
"""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from _shared import markdown, write_summary
from torch import Tensor, nn

from seernet.compression import compress
from seernet.config import DataConfig, EvaluationConfig, ModelConfig, SpaceConfig
from seernet.data import Dataset, prepare
from seernet.device import has_bfloat16
from seernet.evaluation import EvaluationSpec, Evaluator, evaluate_policy, save_baseline
from seernet.models import build, trace
from seernet.policy import Policy, SearchSpace
from seernet.sampling import SpreadDesign
from seernet.training import Classification, Recipe, make_optimizer, seeded, train_steps

BATCH = 128
FAST = "bfloat16" if has_bfloat16("cpu") else "float32"
COST_RANGE = (0.0008, 0.06)  # of the baseline's BOPs; uniform 2 to 8 bits and most widths
DATA = DataConfig(name="digits", image_size=32, channels=3, crop_padding=4)
MODEL = ModelConfig(name="resnet20")


def spec_in(folder: Path, steps: int, precision: str, threads: int) -> EvaluationSpec:
    """Prepare data and an untrained baseline in a folder, and say how policies are measured."""
    prepared, baseline = folder / "prepared", folder / "baseline"
    if not baseline.exists():
        info = prepare(DATA, 0, prepared, BATCH)
        with seeded(0):
            model = build(MODEL, len(info.classes), info.input_shape)
        graph = trace(model, info.input_shape, len(info.classes))
        save_baseline(baseline, model, graph)
    config = EvaluationConfig(steps=steps, batch_size=BATCH, precision=precision, threads=threads)
    return EvaluationSpec(prepared, baseline, DATA, MODEL, config, 0, "cpu")


def step_seconds(model: nn.Module, batches: Sequence[Any], precision: str, repeats: int) -> float:
    """Median time of a training step, in s, over runs of all batches but the first."""
    recipe = Recipe(0.01, 1e-3, 0.9, 1e-4, len(batches), precision=precision)
    optimizer, task = make_optimizer(model, recipe), Classification()
    runs = [
        seconds(lambda: train_steps(model, batches, task, optimizer, recipe))
        for _ in range(repeats + 1)
    ]
    return statistics.median(runs[1:]) / len(batches)


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run torch on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def matmul_rate(dtype: torch.dtype) -> float:
    """Multiply-accumulates a second of a 2048 x 2048 matrix product, the best of five."""
    x = torch.randn(2048, 2048).to(dtype)
    return 2048**3 / min(seconds(lambda: x @ x) for _ in range(5))


def evaluation_ratio(
    spec: EvaluationSpec, policies: Sequence[Policy], batches: Sequence[Any]
) -> dict[str, float]:
    """Mean time of an evaluation over that of as many float32 steps of the baseline."""
    evaluator = Evaluator(spec)
    with threads(spec.config.threads):
        plain = step_seconds(copy.deepcopy(evaluator.model), batches, "float32", 3)
        evaluator.evaluate(policies[0])  # what is compiled or cached, once
        taken = [seconds(lambda p=policy: evaluator.evaluate(p)) for policy in policies]  # type: ignore[misc]
    ratios = [each / (plain * spec.config.steps) for each in taken]
    return {
        "mean": statistics.mean(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "baseline_step_ms": 1e3 * plain,
    }


def quantization_overhead(evaluator: Evaluator, batches: Sequence[Any]) -> dict[str, float]:
    """A step at 4 bits everywhere and no pruning over one without quantization."""
    layers = [layer.name for layer in evaluator.graph.layers]
    bits = dict.fromkeys(layers, 4)
    network = compress(evaluator.model, Policy({}, bits, bits), evaluator.graph, evaluator.images)
    plain = copy.deepcopy(evaluator.model)
    ratios = []
    for _ in range(3):  # alternating, so that both meet the same machine
        quantized = step_seconds(network, batches, FAST, 2)
        ratios.append(quantized / step_seconds(plain, batches, FAST, 2))
    return {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}


def side_by_side(spec: EvaluationSpec, policies: Sequence[Policy]) -> dict[str, float]:
    """Evaluations a second of two workers of one thread, and of one worker of two."""
    rates = {}
    for workers, count in ((2, 1), (1, 2)):
        each = replace(spec, config=spec.config.model_copy(update={"threads": count}))
        jobs = [(each, policy.to_dict()) for policy in policies]
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            list(pool.map(evaluate_policy, jobs[:workers] * 2))  # start, import, compile
            rates[f"{workers}x{count}"] = len(jobs) / seconds(
                lambda p=pool, j=jobs: list(p.map(evaluate_policy, j))  # type: ignore[misc]
            )
    return rates


def profile_of(model: nn.Module, batches: Sequence[Any], rows: int) -> list[tuple[str, float]]:
    """Share of each operator's own time in training steps, largest first."""
    from torch.profiler import ProfilerActivity, profile

    recipe = Recipe(0.01, 1e-3, 0.9, 1e-4, len(batches), precision=FAST)
    optimizer, task = make_optimizer(model, recipe), Classification()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        train_steps(model, batches, task, optimizer, recipe)
    events = sorted(found.key_averages(), key=lambda e: -e.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return [(event.key, event.self_cpu_time_total / total) for event in events[:rows]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=100, help="of an evaluation (default 100)")
    parser.add_argument("--policies", type=int, default=12, help="random ones (default 12)")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="seernet-benchmark-") as folder:
        spec = spec_in(Path(folder), arguments.steps, FAST, 2)
        evaluator = Evaluator(spec)
        space = SearchSpace(evaluator.graph, SpaceConfig())
        policies = space.decode(SpreadDesign(space, COST_RANGE, 0).draw_many(0, arguments.policies))
        batches = _batches(evaluator.dataset, 12)
        with threads(2):
            rate = {name: matmul_rate(getattr(torch, name)) for name in sorted({"float32", FAST})}
            overhead = quantization_overhead(evaluator, batches)
            plain = step_seconds(copy.deepcopy(evaluator.model), batches, FAST, 3)
            macs = 3 * BATCH * sum(layer.macs for layer in evaluator.graph.layers)
            top = profile_of(
                compress(evaluator.model, policies[0], evaluator.graph, evaluator.images),
                batches,
                10,
            )
        summary = {
            "threads": 2,
            "precision": FAST,
            "steps": arguments.steps,
            "evaluation_over_baseline": evaluation_ratio(spec, policies, batches),
            "quantized_over_plain_step": overhead,
            "evaluations_per_second": side_by_side(spec, policies),
            "matmul_macs_per_second": rate,
            "plain_step_of_matmul_rate": macs / plain / rate[FAST],
            "profile": top,
        }
    write_summary("evaluation_cost", summary)
    print(render(summary))


def _batches(dataset: Dataset, count: int) -> list[tuple[Tensor, Tensor]]:
    loader = dataset.loader("train", BATCH, seed=0)
    epochs = itertools.chain.from_iterable(loader.epoch(number) for number in itertools.count())
    return list(itertools.islice(epochs, count))


def render(summary: dict[str, Any]) -> str:
    """The table for a terminal."""
    evaluation, overhead = summary["evaluation_over_baseline"], summary["quantized_over_plain_step"]
    rates = summary["evaluations_per_second"]
    plain = summary["steps"] * evaluation["baseline_step_ms"] / 1e3  # s
    rows = [
        [
            "evaluation / as many float32 steps of the baseline, both on two threads",
            f"{evaluation['mean']:.2f} ({evaluation['lowest']:.2f} to {evaluation['highest']:.2f})",
        ],
        [
            "the same, two workers of one thread each measuring (the pipeline's way)",
            f"{1 / (rates['2x1'] * plain):.2f}",
        ],
        [
            "step at 4 bits / plain step, no pruning",
            f"{overhead['median']:.2f} ({overhead['lowest']:.2f} to {overhead['highest']:.2f})",
        ],
        ["two workers of one thread / one of two", f"{rates['2x1'] / rates['1x2']:.2f}"],
        [
            f"plain {summary['precision']} step / matrix-product rate",
            f"{100 * summary['plain_step_of_matmul_rate']:.0f} %",
        ],
    ]
    shares = [[name, f"{100 * share:.0f} %"] for name, share in summary["profile"]]
    return "\n\n".join(
        [markdown(["ratio", "value"], rows), markdown(["operator, pruned", "own time"], shares)]
    )


if __name__ == "__main__":
    main()
