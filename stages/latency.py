"""Stage `latency`: a table of layers timed on the target, if budgets limit latency."""

import logging
from pathlib import Path

from seernet import artifacts
from seernet.config import Params, load
from seernet.data import DatasetInfo
from seernet.evaluation import load_baseline
from seernet.export import Shipped
from seernet.export.latency import measure
from seernet.graph import NetworkGraph
from seernet.policy import FULL_BITS, CostModel, LatencyTable, Policy, checked_space
from seernet.policy.latency import NONE
from seernet.stage import run

logger = logging.getLogger("latency")


def main() -> None:
    """Write `models/latency.json`."""
    params = load()
    artifacts.LATENCY.parent.mkdir(parents=True, exist_ok=True)
    if params.latency.table == "none":
        artifacts.LATENCY.write_text(NONE, encoding="utf-8")
        return
    graph = NetworkGraph.load(artifacts.GRAPH)
    if params.latency.table == "measure":
        table = measured(params, graph)
    else:
        table = LatencyTable.load(Path(params.latency.table))
    cost = CostModel(checked_space(graph, params), table)
    table.save(artifacts.LATENCY)
    narrow, wide = cost(cost.space.ends).latency_ms.tolist()
    logger.info(
        "%s: the baseline takes %.4g ms in float32, quantized ones some %.4g to %.4g ms",
        *(table.target, table.baseline_ms, narrow, wide),
    )


def measured(params: Params, graph: NetworkGraph) -> LatencyTable:
    """Time the baseline's layers on this machine."""
    info = DatasetInfo.load(artifacts.PREPARED)
    baseline = load_baseline(artifacts.BASELINE, params.model, info)
    whole = dict.fromkeys((layer.name for layer in graph.layers), FULL_BITS)
    ratios = dict.fromkeys((group.name for group in graph.groups), 0.0)
    shipped = Shipped.of(params.model, Policy(ratios, whole, whole), graph, info)
    return measure(baseline, shipped, checked_space(graph, params), params.latency.threads)


if __name__ == "__main__":
    run(main)
