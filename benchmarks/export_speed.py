"""How fast are exported networks? ONNX Runtime on this CPU, in one run, as ratios.

For each network the float32 baseline, the same network pruned but not quantized, and the exported
one: median latency of one image, and images a second in batches of 32, with one thread and with
all. Presets are measured with untrained weights (speed does not depend on them) and the costliest
uniform policy within their smallest budget; `--run` takes the policies of the run in this folder.

    python benchmarks/export_speed.py                 # cifar10-resnet20 and imagenet-mobilenetv2
    python benchmarks/export_speed.py --run           # after `dvc repro`
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from _shared import ROOT, markdown, write_summary
from torch import nn

from seernet import artifacts
from seernet.compression import compress
from seernet.config import Params, load
from seernet.data import DatasetInfo
from seernet.evaluation import load_baseline, read_network
from seernet.export import Shipped
from seernet.export.onnx_file import INPUT, kernels, session, write_onnx
from seernet.graph import NetworkGraph
from seernet.models import build, trace
from seernet.policy import FULL_BITS, CostModel, Policy, SearchSpace, bounds
from seernet.sampling import uniform_candidates

PRESETS = {"cifar10-resnet20": ((3, 32, 32), 10), "imagenet-mobilenetv2": ((3, 224, 224), 1000)}
KINDS = ("baseline", "pruned", "exported")
Case = tuple[str, nn.Module, nn.Module, Shipped]


def presets() -> Iterator[Case]:
    """Name, baseline, compressed network of each preset, and what it is."""
    for name, (shape, classes) in PRESETS.items():
        params = load(ROOT / "presets" / f"{name}.yaml")
        bare = params.model.model_copy(update={"weights": None, "checkpoint": None})
        model = build(bare, classes, shape).eval()
        graph = trace(model, shape, classes)
        space = SearchSpace(graph, params.space)
        cost = CostModel(space)
        smallest = min(params.budgets, key=lambda key: limit_of(params, key, cost))
        (point, *_) = uniform_candidates(cost, bounds(params.budgets[smallest], cost))
        (policy,) = space.decode(point[None])
        images = torch.randn(16, *shape, generator=torch.Generator().manual_seed(0))
        network = compress(model, policy, graph, images).eval()
        middle = (0.5,) * shape[0]
        names = tuple(str(index) for index in range(classes))
        shipped = Shipped(bare, policy, graph, "classification", names, middle, middle)
        yield f"{name}, {smallest}", model, network, shipped


def limit_of(params: Params, budget: str, cost: CostModel) -> float:
    """A budget's limit on BOPs."""
    return min(b.limit for b in bounds(params.budgets[budget], cost) if b.cost == "bops")


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


def measure(
    sessions: dict[str, onnxruntime.InferenceSession], batch: int, seconds: float
) -> dict[str, float]:
    """Median seconds of one call of each session; they take turns, to meet the same machine."""
    (given,) = next(iter(sessions.values())).get_inputs()
    images = np.random.default_rng(0).integers(0, 256, (batch, *given.shape[1:]), dtype=np.uint8)
    times: dict[str, list[float]] = {kind: [] for kind in sessions}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[KINDS[0]]) < 7:
        for kind, one in sessions.items():
            start = time.perf_counter()
            one.run(None, {INPUT: images})
            times[kind].append(time.perf_counter() - start)
    return {kind: statistics.median(found[2:]) for kind, found in times.items()}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--run", action="store_true", help="the run in this folder, not presets")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    rows, summary = [], []
    for case in run_here() if arguments.run else presets():
        with tempfile.TemporaryDirectory() as folder:
            paths = files(case, Path(folder))
            arithmetic = asdict(kernels(paths["exported"]))
            for threads in sorted({1, os.cpu_count() or 1}):
                sessions = {kind: session(path, threads) for kind, path in paths.items()}
                for batch in (1, 32):
                    found = measure(sessions, batch, arguments.seconds)
                    gains = {k: found["baseline"] / found[k] for k in KINDS}
                    row = {
                        "network": case[0],
                        "threads": threads,
                        "batch": batch,
                        **arithmetic,
                        **{f"{kind}_ms": 1000 * found[kind] for kind in KINDS},
                        **{f"{kind}_speedup": gains[kind] for kind in KINDS[1:]},
                    }
                    summary.append(row)
                    cells = [f"{1000 * found[kind]:.2f}" for kind in KINDS]
                    cells += [f"{gains[kind]:.2f}" for kind in KINDS[1:]]
                    rows.append([case[0], threads, batch, *cells])
    write_summary("export_speed_run" if arguments.run else "export_speed", summary)
    header = ["network", "threads", "batch", *(f"{kind}, ms" for kind in KINDS)]
    print(markdown([*header, "pruned, times faster", "exported, times faster"], rows))


if __name__ == "__main__":
    main()
