"""Keep a finished run of the pipeline under `docs/results/NAME/`.

Copied are parameters, lock, tables, metrics, figures and, where it is small enough for git, the
baseline; written are the wall time of every stage, what machine it was, the finetuned networks,
bit-packed, and of detectors what they find in five test images. Run it where the pipeline ran.

    cp presets/cifar10-resnet20.yaml params.yaml && dvc repro
    python benchmarks/record.py cifar10-resnet20
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torchvision
import yaml
from _detections import CONFIDENT, draw_detections
from _shared import ROOT, markdown
from torch import nn

from seernet import artifacts
from seernet.config import Params, load
from seernet.data import Dataset, DatasetInfo
from seernet.device import resolve
from seernet.evaluation import load_baseline, read_network
from seernet.export import Shipped, save
from seernet.graph import NetworkGraph
from seernet.stage import TIMINGS

COPIED = ("params.yaml", "results/tradeoff.csv", "results/front.csv")
COPIED += (str(artifacts.EVALUATIONS),)
BASELINE_BYTES = 4 * 2**20  # of the largest baseline that is kept


def machine() -> dict[str, Any]:
    """What the run may depend on."""
    found = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__.partition("+")[0],
        "torchvision": torchvision.__version__.partition("+")[0],
        "revision": _git("rev-parse", "--short", "HEAD"),
    }
    return {key: value for key, value in found.items() if value is not None}


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{next(named, platform.processor() or platform.machine())}, {capability}"


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def in_run(name: str, params: Params) -> bool:
    """Whether a stage is of no budget, or of one in the parameters."""
    return "@" not in name or name.partition("@")[2] in params.budgets


def lock(params: Params) -> str:
    """The lock, less stages of budgets that are not in the parameters (any more)."""
    document = yaml.safe_load(Path("dvc.lock").read_text(encoding="utf-8"))
    document["stages"] = {
        name: stage for name, stage in document["stages"].items() if in_run(name, params)
    }
    return yaml.safe_dump(document, sort_keys=False)


def timings(params: Params) -> pd.DataFrame:
    """Wall time of each stage that the run has, in s, over all tries, in order of the first."""
    table = pd.read_csv(TIMINGS, dtype={"arguments": str}, keep_default_na=False)
    names = (table["stage"] + "@" + table["arguments"]).str.removesuffix("@")
    table = table.assign(stage=names)[names.map(lambda name: in_run(name, params))]
    groups = table.groupby("stage", sort=False)
    return groups.agg(seconds=("seconds", "sum"), tries=("seconds", "size")).reset_index()


def networks(params: Params, info: DatasetInfo, folder: Path) -> dict[str, nn.Module]:
    """Pack every finetuned network into a folder of its own.

    Returns:
        The baseline, and the first network of each budget.
    """
    graph = NetworkGraph.load(artifacts.GRAPH)
    baseline = load_baseline(artifacts.BASELINE, params.model, info)
    found = {"baseline": baseline}
    for budget in params.budgets:
        for file in sorted((artifacts.FINETUNED / budget).glob("seed-*.safetensors")):
            network, policy = read_network(file, baseline, graph)
            found.setdefault(budget, network)
            save(
                folder / budget / file.stem, network, Shipped.of(params.model, policy, graph, info)
            )
    return found


def render(
    name: str, times: pd.DataFrame, what: dict[str, Any], params: Params, pictures: bool
) -> str:
    """The record's README; `pictures` says whether detections were drawn."""
    sample = artifacts.read_json(artifacts.METRICS / "sample.json", "sample")
    table = pd.read_csv(artifacts.TRADEOFF)
    columns = ["budget", "method", "seed", "bops_ratio", "size_bytes", "test_score"]
    rows = [
        [f"{v:.4g}" if isinstance(v, float) else v for v in row]
        for row in table[columns].itertuples(index=False)
    ]
    seconds = dict(zip(times["stage"], times["seconds"], strict=True))
    cores = params.sample.workers * params.sample.evaluation.threads
    lines = [
        f"# {name}",
        "",
        "![Trade-off](figures/tradeoff.png)",
        "",
        f"Baseline on the test split: {table['baseline_score'].iloc[0]:.4f}. Ran on "
        + ", ".join(f"{key} {value}" for key, value in what.items())
        + ".",
        "",
        markdown(columns, rows),
        "",
        f"The search measured {sample['evaluations']} policies (as many at random included) in "
        f"{seconds.get('sample', 0.0) * cores / 3600:.2f} core-hours.",
        "",
        markdown(
            ["stage", "wall time, s", "tries"],
            [[s, f"{t:.0f}", n] for s, t, n in times.itertuples(index=False)],
        ),
        "",
        "`make verify-results` scores the networks below `networks/` on the test split again.",
    ]
    if pictures:
        lines += [
            "",
            "Five test images: what is annotated, and what the baseline and each budget's network",
            f"find with a score of {CONFIDENT} or more.",
            "",
            "![Detections](figures/detections.png)",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Record the run of the working folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("name", help="of the record, e.g. of the preset")
    name = parser.parse_args().name
    params = resolve(load())
    folder = ROOT / "docs" / "results" / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "figures").mkdir(parents=True)
    for file in COPIED:
        shutil.copy2(file, folder / Path(file).name)
    (folder / "dvc.lock").write_text(lock(params), encoding="utf-8")
    for file in sorted(artifacts.METRICS.rglob("*.json")):
        if file.parent == artifacts.METRICS or file.stem in params.budgets:
            target = folder / "metrics" / file.relative_to(artifacts.METRICS)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target)
    for file in sorted(artifacts.FIGURES.glob("*.png")):
        shutil.copy2(file, folder / "figures" / file.name)
    times, what = timings(params), machine()
    times.to_csv(folder / "timings.csv", index=False, lineterminator="\n")
    (folder / "machine.json").write_text(json.dumps(what, indent=2) + "\n", encoding="utf-8")
    dataset = Dataset.open(artifacts.PREPARED, torch.device("cpu"), 0)
    found = networks(params, dataset.info, folder / "networks")
    pictures = dataset.info.task == "detection"
    if pictures:
        draw_detections(dataset, found, folder / "figures" / "detections.png")
    weights = artifacts.BASELINE / "model.safetensors"
    if weights.stat().st_size <= BASELINE_BYTES:
        shutil.copy2(weights, folder / "baseline.safetensors")
    text = render(name, times, what, params, pictures)
    (folder / "README.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
