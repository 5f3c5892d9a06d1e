"""How fast are training and sampling on this machine, and what do layout and arithmetic bring?

ResNet-20 at 32 x 32 pixels, or a torchvision network at 224, on scikit-learn's digits, enlarged
(the pixels do not matter to the time); on the GPU where there is one. On a GPU the training steps
also run under torch's watch for host synchronisation, which ends the benchmark if there is any.

- images/s of training the baseline, in either arithmetic and layout, step by step, on a GPU also
  recorded (as the pipeline does there), and through `torch.compile` (`--compile`);
- images/s of training it at 4 bits, in the same ways;
- on a CPU, the same as the pipeline does it, and what each of two measures brings there: freed
  memory kept (`seernet.allocator`), and float32 for the gradients of depthwise convolutions that
  are slow in bfloat16 (`seernet.training.depthwise`);
- policies/minute of sampling, from one process to several that share the device.

    python benchmarks/throughput.py
    python benchmarks/throughput.py --model torchvision:resnet18 --batch 64
    python benchmarks/throughput.py --model torchvision:mobilenet_v2 --batch 32
"""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from _shared import markdown, write_summary
from torch import Tensor, nn

from seernet.allocator import recycle
from seernet.compression import compress
from seernet.config import DataConfig, EvaluationConfig, ModelConfig, SpaceConfig
from seernet.data import Augment, prepare
from seernet.device import has_bfloat16, resolve_device
from seernet.evaluation import EvaluationSpec, Evaluator, evaluate_policy, save_baseline
from seernet.models import build, trace
from seernet.policy import Policy, SearchSpace
from seernet.sampling import SpreadDesign
from seernet.training import (
    Classification,
    Recipe,
    make_optimizer,
    replay_on,
    seeded,
    train_steps,
)
from seernet.training.replay import Replay

COST_RANGE = (0.0008, 0.06)  # of the baseline's BOPs
LAYOUTS = {"usual": torch.contiguous_format, "channels last": torch.channels_last}
REPEATS = 3
PARTS = ("on_cpu", "training", "sampling")


def spec_in(folder: Path, arguments: argparse.Namespace, device: str) -> EvaluationSpec:
    """Prepare data and an untrained baseline in a folder, and say how policies are measured."""
    size = 32 if arguments.model == "resnet20" else 224
    data = DataConfig(name="digits", image_size=size, channels=3, crop_padding=size // 8)
    model = ModelConfig(name=arguments.model)
    prepared, baseline = folder / "prepared", folder / "baseline"
    info = prepare(data, 0, prepared, arguments.batch)
    with seeded(0):
        network = build(model, len(info.classes), info.input_shape)
    save_baseline(baseline, network, trace(network, info.input_shape, len(info.classes)))
    config = EvaluationConfig(
        steps=arguments.steps,
        batch_size=arguments.batch,
        precision=fast_precision(device),
        threads=1,
    )
    return EvaluationSpec(prepared, baseline, data, model, config, 0, device)


def fast_precision(device: str) -> str:
    """What `precision: auto` takes."""
    return "bfloat16" if has_bfloat16(device) else "float32"


def training_rates(evaluator: Evaluator, batch: int, compiled: bool) -> dict[str, dict[str, float]]:
    """Images a second of training steps, by arithmetic and layout, each the median of three."""
    batches = _batches(evaluator, batch, 12)
    device = evaluator.spec.device
    kinds = ["eager", *["recorded"] * (device == "cuda"), *["compiled"] * compiled]
    found: dict[str, dict[str, float]] = {}
    for name, model in (("float", evaluator.model), ("4 bits", _quantized(evaluator))):
        for precision in sorted({"float32", fast_precision(device)}):
            for layout, memory_format in LAYOUTS.items():
                for kind in kinds:
                    network = copy.deepcopy(model).to(memory_format=memory_format)  # type: ignore[call-overload]
                    if kind == "compiled":
                        network.compile()
                    replay = replay_on(network) if kind == "recorded" else None
                    rate = _rate(network, batches, precision, device, replay)
                    found[f"{name}, {precision}, {layout}, {kind}"] = {"images_per_second": rate}
    return found


def cpu_rates(evaluator: Evaluator, batch: int) -> dict[str, dict[str, float]]:
    """Images a second of training at 4 bits as the pipeline does it, one measure after another."""
    batches = _batches(evaluator, batch, 12)
    network = _quantized(evaluator)

    def rate() -> dict[str, float]:
        precision = fast_precision("cpu")
        return {"images_per_second": _rate(copy.deepcopy(network), batches, precision, "cpu", None)}

    found = {}
    with patch("seernet.training.loop.exact_depthwise", lambda _: nullcontext()):
        found["torch alone"] = rate()
        recycle()
        found["freed memory kept"] = rate()
    found["and depthwise gradients in float32"] = rate()
    return found


def _quantized(evaluator: Evaluator) -> nn.Module:
    """The baseline at 4 bits, nothing pruned."""
    bits = {layer.name: 4 for layer in evaluator.graph.layers}
    return compress(evaluator.model, Policy({}, bits, bits), evaluator.graph, evaluator.images)


def _rate(
    network: nn.Module,
    batches: Sequence[tuple[Tensor, Tensor]],
    precision: str,
    device: str,
    replay: Replay | None,
) -> float:
    recipe = Recipe(0.01, 1e-3, 0.9, 1e-4, len(batches), precision=precision)
    optimizer, task = make_optimizer(network, recipe), Classification()

    def steps() -> None:
        train_steps(network, batches, task, optimizer, recipe, replay=replay)

    taken = [_seconds(steps, device) for _ in range(REPEATS + 1)][1:]
    images = sum(len(targets) for _, targets in batches)
    return images / statistics.median(taken)


def _seconds(work: Callable[[], Any], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def _batches(evaluator: Evaluator, size: int, count: int) -> list[tuple[Tensor, Tensor]]:
    augment = Augment(evaluator.spec.data.crop_padding, flip=True)
    loader = evaluator.dataset.loader("train", size, augment=augment, seed=0)
    epochs = itertools.chain.from_iterable(loader.epoch(number) for number in itertools.count())
    return list(itertools.islice(epochs, count))


def watch_for_synchronisation(evaluator: Evaluator, batch: int) -> None:
    """Train a few steps, loading included, while torch forbids waiting for the GPU.

    Raises:
        RuntimeError: From torch, at the line that waits.
    """
    network = copy.deepcopy(evaluator.model)
    recipe = Recipe(0.01, 1e-3, 0.9, 1e-4, 8, precision=fast_precision("cuda"))
    optimizer, task = make_optimizer(network, recipe), Classification()
    augment = Augment(evaluator.spec.data.crop_padding, flip=True)
    loader = evaluator.dataset.loader("train", batch, augment=augment, seed=0)
    batches = loader.epoch(0)
    first = [next(batches)]  # an epoch's random numbers are copied to the device once
    train_steps(network, first, task, optimizer, recipe)
    network.train()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for images, targets in itertools.islice(batches, 8):
            with torch.autocast("cuda", torch.bfloat16, enabled=recipe.precision == "bfloat16"):
                loss = task.loss(network, images, targets, None)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def sampling_rates(
    spec: EvaluationSpec, evaluator: Evaluator, arguments: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Policies a minute, by the number of processes, of the same random policies."""
    space = SearchSpace(evaluator.graph, SpaceConfig())
    count = max(arguments.policies, 2 * max(arguments.workers))
    policies = space.decode(SpreadDesign(space, COST_RANGE, 0).draw_many(0, count))
    jobs = [(spec, policy.to_dict()) for policy in policies]
    quick = replace(spec, config=spec.config.model_copy(update={"steps": 1}))
    found = {}
    for workers in arguments.workers:
        context = get_context("spawn")
        with ProcessPoolExecutor(workers, context, initializer=recycle) as pool:
            list(pool.map(evaluate_policy, [(quick, jobs[0][1])] * 2 * workers))  # start, import
            list(pool.map(evaluate_policy, jobs[:1] * 2 * workers))
            begin = time.perf_counter()
            results = list(pool.map(evaluate_policy, jobs))
            taken = time.perf_counter() - begin
        failed = [result.error for result in results if result.score is None]
        if failed:
            raise SystemExit(f"error: {len(failed)} measurements failed: {failed[0]}")
        found[str(workers)] = {"policies_per_minute": 60.0 * len(jobs) / taken}
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="resnet20", help="the network (default resnet20)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=128, help="images a step (default 128)")
    parser.add_argument("--steps", type=int, default=100, help="of an evaluation (default 100)")
    parser.add_argument("--policies", type=int, default=8, help="to measure (default 8)")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[1, 2], help="processes (default 1 and 2)"
    )
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, help="of the above")
    parser.add_argument("--compile", action="store_true", help="torch.compile as well")
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    if arguments.parts == ["on_cpu"] and device != "cpu":
        parser.error("on_cpu is of a CPU; add --device cpu.")
    with TemporaryDirectory(prefix="seernet-benchmark-") as folder:
        spec = spec_in(Path(folder), arguments, device)
        evaluator = Evaluator(spec)
        if device == "cuda":
            watch_for_synchronisation(evaluator, arguments.batch)
        found: dict[str, dict[str, dict[str, float]]] = {}
        if "on_cpu" in arguments.parts and device == "cpu":  # before anything keeps freed memory
            found["on_cpu"] = cpu_rates(evaluator, arguments.batch)
        recycle()  # as the pipeline does
        if "training" in arguments.parts:
            found["training"] = training_rates(evaluator, arguments.batch, arguments.compile)
        if "sampling" in arguments.parts:
            found["sampling"] = sampling_rates(spec, evaluator, arguments)
        summary = {
            "model": arguments.model,
            "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "batch": arguments.batch,
            "steps": arguments.steps,
            **found,
        }
    parts = "" if set(arguments.parts) == set(PARTS) else "-" + "-".join(sorted(found))
    write_summary(f"throughput/{arguments.model.rpartition(':')[2]}-{device}{parts}", summary)
    print(render(summary))


def render(summary: dict[str, Any]) -> str:
    """The tables for a terminal; ratios are to the first row."""
    tables = []
    for part, key, first in (
        ("training", "images_per_second", "training"),
        ("on_cpu", "images_per_second", "training at 4 bits on a CPU"),
        ("sampling", "policies_per_minute", "processes"),
    ):
        if part not in summary:
            continue
        rates = {name: row[key] for name, row in summary[part].items()}
        reference = next(iter(rates.values()))
        rows = [[name, f"{rate:.0f}", f"{rate / reference:.2f}"] for name, rate in rates.items()]
        tables.append(markdown([first, key.replace("_per_", "/"), "ratio"], rows))
    return "\n\n".join(tables)


if __name__ == "__main__":
    main()
