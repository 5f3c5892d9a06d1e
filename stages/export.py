"""Stage `export@B`: a budget's network as files that ship, held against the network itself."""

import itertools
import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from seernet import artifacts
from seernet.config import load
from seernet.data import Dataset
from seernet.evaluation import load_baseline, read_network
from seernet.export import TENSORS, Shipped, save
from seernet.export import load as load_packed
from seernet.export.onnx_file import Kernels, kernels, write_onnx
from seernet.export.parity import compare
from seernet.export.runtime import RuntimeNetwork
from seernet.graph import NetworkGraph
from seernet.stage import budget_argument, run
from seernet.training import Exact, make_task, reproducible, scored

logger = logging.getLogger("export")
ONNX = "model.onnx"
FEW_BATCHES = 8  # of the search split: enough to see that what is packed is what was finetuned


def main() -> None:
    """Write `models/exported/B/` and its metrics."""
    params = load()
    budget = budget_argument(sys.argv, params.budgets)
    reproducible(params.export.threads)
    finetuned = artifacts.read_json(
        artifacts.METRICS / "finetune" / f"{budget}.json", f"finetune@{budget}"
    )
    best = max(finetuned["runs"], key=lambda one: one["search_score"])
    dataset = Dataset.open(artifacts.PREPARED, torch.device("cpu"), params.data.workers)
    graph = NetworkGraph.load(artifacts.GRAPH)
    baseline = load_baseline(artifacts.BASELINE, params.model, dataset.info)
    path = artifacts.FINETUNED / budget / f"seed-{best['seed']}.safetensors"
    network, policy = read_network(path, baseline, graph)
    shipped = Shipped.of(params.model, policy, graph, dataset.info)
    folder = artifacts.EXPORTED / budget
    save(folder, network, shipped)
    packed = load_packed(folder, trust_code=True)
    task = make_task(dataset.info)
    some = itertools.islice(scored(dataset, "search"), FEW_BATCHES)
    compare(task, network, packed, some).check_packed()
    metrics: dict[str, Any] = {
        "budget": budget,
        "metric": finetuned["metric"],
        "seed": best["seed"],
        "size_bytes": finetuned["size_bytes"],
        "packed_bytes": sum(value.nbytes for value in load_file(folder / TENSORS).values()),
        "file_bytes": (folder / TENSORS).stat().st_size,
        "baseline_bytes": (artifacts.BASELINE / "model.safetensors").stat().st_size,
    }
    if params.export.onnx:
        write_onnx(folder / ONNX, network, shipped, {"budget": budget})
        exported = RuntimeNetwork(folder / ONNX, shipped, params.export.threads).eval()
        # The test split is seen by both together, once.
        found = compare(task, Exact(packed), exported, scored(dataset, "test", exact=True))
        logger.info(
            "%s: model.onnx scores %.4f, the network %.4f; they agree on %.2f %%",
            *(budget, found.exported_score, found.test_score, 100 * found.agreement),
        )
        found.check(params.export)
        metrics |= {
            "onnx_bytes": (folder / ONNX).stat().st_size,
            **asdict(arithmetic(folder / ONNX)),
            "agreement": found.agreement,
            "test_score": found.test_score,
            "exported_score": found.exported_score,
        }
    artifacts.write_json(artifacts.METRICS / "export" / f"{budget}.json", metrics)


def arithmetic(path: Path) -> Kernels:
    """In which kernels an exported file runs; warns of slow ones."""
    found = kernels(path)
    if found.float_convolutions or found.float_adds:
        logger.warning(
            "ONNX Runtime computes %d convolutions and %d additions of %s in float32, which is "
            "slower: what they give is not quantized",
            *(found.float_convolutions, found.float_adds, path),
        )
    return found


if __name__ == "__main__":
    run(main)
