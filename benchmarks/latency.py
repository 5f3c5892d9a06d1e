"""Does the latency table predict how long exported networks take? On this CPU, in one run.

For each network a table of its layers is measured, then random policies are exported and timed:
Kendall's tau between predicted and measured latency, and the median relative error. Weights are
untrained: speed does not depend on them.

    python benchmarks/latency.py                      # cifar10-resnet20 and imagenet-mobilenetv2
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from _shared import PRESETS, Untrained, markdown, write_summary
from scipy.stats import kendalltau

from seernet.compression import compress
from seernet.export.clock import Clock
from seernet.export.latency import measure, time_networks
from seernet.policy import CostModel
from seernet.sampling import SpreadDesign


def run(preset: str, policies: int, threads: int) -> dict[str, float | str | list[float]]:
    """The table of one preset's network, held against random policies of its space."""
    case = Untrained.of(preset)
    network, space = case.network, case.space
    (full,) = space.decode(torch.ones(1, space.dimension, dtype=torch.float64))
    shipped = case.shipped(full)
    start = time.perf_counter()
    table = measure(network, shipped, space, threads)
    seconds = time.perf_counter() - start
    cost = CostModel(space, table)
    cost_range = tuple(case.params.sample.cost_range)
    points = SpreadDesign(space, cost_range, seed=1).draw_many(0, policies)
    networks = (
        compress(network, policy, space.graph, case.images).eval()
        for policy in space.decode(points)
    )
    measured = time_networks(networks, shipped, Clock(threads))
    predicted = cost(points).latency_ms.numpy()
    errors = np.abs(predicted / np.array(measured) - 1.0)
    return {
        "network": preset,
        "threads": threads,
        "policies": policies,
        "table_seconds": seconds,
        "baseline_ms": table.baseline_ms,
        "kendall_tau": float(kendalltau(predicted, measured).statistic),
        "median_error": float(np.median(errors)),
        "largest_error": float(errors.max()),
        "predicted_ms": predicted.tolist(),
        "measured_ms": measured,
        "fixed_ms": table.fixed_ms,
        "factor": table.factor,
        "ms_per_value": table.ms_per_value,
    }


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--policies", type=int, default=20, help="random ones (default 20)")
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime (default 1)")
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=list(PRESETS))
    arguments = parser.parse_args()
    found = []
    for name in arguments.presets:
        found.append(run(name, arguments.policies, arguments.threads))
        write_summary("latency", found)
    header = ["network", "table, s", "tau", "median error", "largest", "ms from", "to"]
    rows = [
        [
            one["network"],
            f"{one['table_seconds']:.0f}",
            f"{one['kendall_tau']:.3f}",
            f"{one['median_error']:.1%}",
            f"{one['largest_error']:.1%}",
            f"{min(one['measured_ms']):.2f}",  # type: ignore[arg-type]
            f"{max(one['measured_ms']):.2f}",  # type: ignore[arg-type]
        ]
        for one in found
    ]
    print(markdown(header, rows))


if __name__ == "__main__":
    main()
