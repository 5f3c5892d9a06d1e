"""How fast are exported networks? ONNX Runtime on this CPU, in one run, as ratios.

For each network the float32 baseline, the same network pruned but not quantized, and the exported
one: the time of one image and of 32 at once, with one thread and with all. They take turns call by
call, and a ratio is of calls side by side: its median, and the middle half of all. ONNX Runtime's
profiler then says where the exported network spends the time of one image, with one thread.

Presets have untrained weights (speed does not depend on them) and the costliest uniform policy
within their smallest budget; `--record` takes the finetuned networks of a record, one a budget, and
its baseline; `--run` those of the run in this folder.

    python benchmarks/export_speed.py                 # cifar10-resnet20 and imagenet-mobilenetv2
    python benchmarks/export_speed.py --record docs/results/cifar10-resnet20
    python benchmarks/export_speed.py --run           # after `dvc repro`
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from _shared import PRESETS, ROOT, Untrained, markdown, write_summary
from torch import nn

from seernet import artifacts
from seernet.compression import compress
from seernet.config import Params, load
from seernet.data import DatasetInfo
from seernet.evaluation import load_baseline, read_network
from seernet.export import Shipped
from seernet.export import load as load_packed
from seernet.export.onnx_file import INPUT, kernels, session, write_onnx
from seernet.graph import NetworkGraph
from seernet.models import build
from seernet.policy import FULL_BITS, CostModel, Policy, bounds
from seernet.sampling import uniform_candidates

KINDS = ("baseline", "pruned", "exported")
BATCHES = (1, 32)
LEAST_SHARE = 0.02  # of the time, below which an operator is not listed
PROFILED = 30  # calls
Case = tuple[str, nn.Module, nn.Module, Shipped]


def presets() -> Iterator[Case]:
    """Name, baseline, compressed network of each preset, and what it is."""
    for name in PRESETS:
        case = Untrained.of(name)
        cost = CostModel(case.space)
        budgets = case.params.budgets
        smallest = min(budgets, key=lambda key: limit_of(case.params, key, cost))
        (point, *_) = uniform_candidates(cost, bounds(budgets[smallest], cost))
        (policy,) = case.space.decode(point[None])
        network = compress(case.network, policy, case.space.graph, case.images)
        yield f"{name}, {smallest}", case.network, network, case.shipped(policy)


def limit_of(params: Params, budget: str, cost: CostModel) -> float:
    """A budget's limit on BOPs."""
    return min(b.limit for b in bounds(params.budgets[budget], cost) if b.cost == "bops")


def recorded(record: Path) -> Iterator[Case]:
    """The same of each budget of a record; all seeds of a budget have one policy.

    Raises:
        ModelError: If its `baseline.safetensors` is missing.
    """
    for budget in sorted((record / "networks").iterdir()):
        network = load_packed(min(budget.glob("seed-*")))
        shipped: Shipped = network.shipped  # type: ignore[assignment]
        config = shipped.model.model_copy(
            update={"checkpoint": str(record.resolve() / "baseline.safetensors")}
        )
        shape = shipped.graph.input_shape
        baseline = build(config, len(shipped.classes), shape, shipped.task)
        yield f"{record.name}, {budget.name}", baseline, network, shipped


def run_here() -> Iterator[Case]:
    """The same of every budget of the run in this folder."""
    params = load()
    info = DatasetInfo.load(artifacts.PREPARED)
    graph = NetworkGraph.load(artifacts.GRAPH)
    baseline = load_baseline(artifacts.BASELINE, params.model, info)
    for budget in params.budgets:
        path = min((artifacts.FINETUNED / budget).glob("seed-*.safetensors"))
        network, policy = read_network(path, baseline, graph)
        yield budget, baseline, network, Shipped.of(params.model, policy, graph, info)


def files(case: Case, folder: Path) -> dict[str, Path]:
    """The three files of one network."""
    name, baseline, network, shipped = case
    layers = [layer.name for layer in shipped.graph.layers]
    full = dict.fromkeys(layers, FULL_BITS)
    pruned = Policy(shipped.policy.pruning_ratio, full, full)
    networks = (baseline, compress(baseline, pruned, shipped.graph), network)
    paths = {kind: folder / f"{kind}.onnx" for kind in KINDS}
    for (kind, path), one in zip(paths.items(), networks, strict=True):
        write_onnx(path, one.eval(), shipped, {"kind": kind, "name": name})
    return paths


def images_for(one: onnxruntime.InferenceSession, batch: int) -> dict[str, Any]:
    """Random images, as a session takes them."""
    (given,) = one.get_inputs()
    shape = (batch, *given.shape[1:])
    return {INPUT: np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)}


def measure(
    sessions: dict[str, onnxruntime.InferenceSession], batch: int, seconds: float
) -> dict[str, float | list[float]]:
    """Median ms of one call of each session, and how many times faster than the baseline."""
    images = images_for(sessions[KINDS[0]], batch)
    times: dict[str, list[float]] = {kind: [] for kind in sessions}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[KINDS[0]]) < 7:
        for kind, one in sessions.items():
            start = time.perf_counter()
            one.run(None, images)
            times[kind].append(1000.0 * (time.perf_counter() - start))
    found: dict[str, float | list[float]] = {}
    arrays = {kind: np.array(each[2:]) for kind, each in times.items()}
    for kind, each in arrays.items():
        found[f"{kind}_ms"] = float(np.median(each))
        if kind != KINDS[0]:
            low, middle, high = np.quantile(arrays[KINDS[0]] / each, (0.25, 0.5, 0.75))
            found[f"{kind}_speedup"] = float(middle)
            found[f"{kind}_middle_half"] = [float(low), float(high)]
    return found


def profile(path: Path) -> dict[str, float]:
    """Shares of the time of one image by kind of operator, the largest first; one thread.

    Of each operator the median over calls counts, since other work may disturb some of them.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    options.profile_file_prefix = str(path.with_suffix(""))
    one = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    images = images_for(one, 1)
    for _ in range(PROFILED):
        one.run(None, images)
    events = json.loads(Path(one.end_profiling()).read_text(encoding="utf-8"))
    calls: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            calls[event["args"]["op_name"], event["name"]].append(event["dur"])
    spent: Counter[str] = Counter()
    for (kind, _), times in calls.items():
        spent[kind] += np.median(times)
    return {name: used / spent.total() for name, used in spent.most_common()}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--run", action="store_true", help="the run in this folder, not presets")
    source.add_argument("--record", type=Path, help="folder of a record, below docs/results")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    arguments = parser.parse_args()
    cases, name = presets(), "export_speed"
    if arguments.record:
        if not (arguments.record / "networks").is_dir():
            parser.error(f"{arguments.record} holds no networks; benchmarks/record.py keeps them")
        cases, name = recorded(arguments.record), f"export_speed_{arguments.record.resolve().name}"
    elif arguments.run:
        os.chdir(ROOT)
        cases, name = run_here(), "export_speed_run"
    rows, shares, summary = [], [], []
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            paths = files(case, Path(folder))
            where = profile(paths["exported"])
            summary.append({"network": case[0], **asdict(kernels(paths["exported"])), "speed": []})
            summary[-1]["time_shares"] = where
            listed = [f"{op} {share:.0%}" for op, share in where.items() if share >= LEAST_SHARE]
            shares.append([case[0], ", ".join(listed)])
            for threads in sorted({1, os.cpu_count() or 1}):
                sessions = {kind: session(path, threads) for kind, path in paths.items()}
                for batch in BATCHES:
                    found = measure(sessions, batch, arguments.seconds)
                    summary[-1]["speed"].append({"threads": threads, "batch": batch, **found})
                    rows.append([case[0], threads, batch, *cells(found)])
        write_summary(name, summary)
    header = ["network", "threads", "batch", *(f"{kind}, ms" for kind in KINDS)]
    print(markdown([*header, *(f"{kind}, times faster" for kind in KINDS[1:])], rows))
    print(markdown(["network", "where the exported one spends the time of one image"], shares))


def cells(found: dict[str, Any]) -> list[str]:
    """Times, then ratios with their spread, as text."""
    shown = [f"{found[f'{kind}_ms']:.2f}" for kind in KINDS]
    for kind in KINDS[1:]:
        low, high = found[f"{kind}_middle_half"]
        shown.append(f"{found[f'{kind}_speedup']:.2f} [{low:.2f}, {high:.2f}]")
    return shown


if __name__ == "__main__":
    main()
