"""What do two workers measure in the time in which one measures one?

The same policies, through the pipeline's own engine (worker processes, each result to the store),
with each number of workers in turn; a worker always has one thread. Efficiency is the rate with n
workers over n times the rate with the first number, within one repetition, so that both meet the
same machine; what starting costs (processes, imports, data) is left out. ResNet-20 at 32 x 32
pixels, batch 128 (scikit-learn's digits, enlarged: the pixels do not matter to the time).

It says how busy the machine was: with other work beside it, two workers compete with that, and the
figure says nothing about the engine.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --workers 1 2 4 8 --json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from _shared import markdown, write_summary
from evaluation_cost import COST_RANGE, FAST, spec_in

from seernet.config import SpaceConfig
from seernet.evaluation import EvaluationSpec, Measurer
from seernet.graph import NetworkGraph
from seernet.parallel import LocalExecutor
from seernet.policy import Policy, SearchSpace
from seernet.progress import bar
from seernet.sampling import SpreadDesign
from seernet.store import Store

IDLE = 0.2  # load a core below which a machine does nothing else


def rate(spec: EvaluationSpec, policies: Sequence[Policy], workers: int) -> float:
    """Policies a minute, once all workers have started.

    Raises:
        SystemExit: If a measurement fails.
    """
    with TemporaryDirectory() as folder, LocalExecutor(workers) as executor:
        # What is imported and read once in each worker; kept elsewhere, so that it is made again.
        Measurer(spec, Store(Path(folder) / "first.sqlite"), executor)(policies[:workers])
        measurer = Measurer(spec, Store(Path(folder) / "second.sqlite"), executor)
        begin = time.perf_counter()
        found = measurer(policies)
        taken = time.perf_counter() - begin
    failed = [evaluation.error for evaluation in found if evaluation.score is None]
    if failed:
        raise SystemExit(f"error: {len(failed)} measurements failed: {failed[0]}")
    return 60.0 * len(policies) / taken


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """Rates and efficiencies of all repetitions."""
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    rates: dict[int, list[float]] = {workers: [] for workers in arguments.workers}
    with TemporaryDirectory(prefix="seernet-benchmark-") as folder:
        spec = spec_in(Path(folder), arguments.steps, FAST, 1)
        space = SearchSpace(NetworkGraph.load(spec.baseline / "graph.json"), SpaceConfig())
        design = SpreadDesign(space, COST_RANGE, 0)
        policies = space.decode(design.draw_many(0, arguments.policies))
        with bar(arguments.repetitions * len(arguments.workers), "timing", "leg") as shown:
            for _ in range(arguments.repetitions):
                for workers in arguments.workers:
                    rates[workers].append(rate(spec, policies, workers))
                    shown.update()
    first, *_ = arguments.workers
    efficiency = {
        workers: [
            (many / workers) / (few / first)
            for few, many in zip(rates[first], rates[workers], strict=True)
        ]
        for workers in arguments.workers
    }
    return {
        "cores": os.cpu_count(),
        "load_of_others_a_core": load,
        "busy": load > IDLE,
        "steps": arguments.steps,
        "policies": arguments.policies,
        "policies_per_minute": rates,
        "efficiency": efficiency,
    }


def render(summary: dict[str, Any]) -> str:
    """The table for a terminal: medians, with the lowest and highest repetition."""
    rows = []
    for workers, rates in summary["policies_per_minute"].items():
        cells = [(rates, 1), (summary["efficiency"][workers], 2)]
        rows.append(
            [
                workers,
                *(
                    f"{statistics.median(v):.{d}f} ({min(v):.{d}f} to {max(v):.{d}f})"
                    for v, d in cells
                ),
            ]
        )
    table = markdown(["workers", "policies/minute", "efficiency"], rows)
    load = summary["load_of_others_a_core"]
    if summary["busy"]:
        table += f"\n\nwarning: the machine was busy (load {load:.1f} a core); run it again later."
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=20, help="of an evaluation (default 20)")
    parser.add_argument("--policies", type=int, default=12, help="random ones (default 12)")
    parser.add_argument("--repetitions", type=int, default=5, help="default 5")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[1, 2], help="processes (default 1 and 2)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, no table")
    arguments = parser.parse_args()
    summary = measured(arguments)
    write_summary("scaling", summary)
    print(json.dumps(summary) if arguments.json else render(summary))


if __name__ == "__main__":
    main()
