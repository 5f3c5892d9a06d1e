"""Does SeerNet beat the plain rival? The whole pipeline with several seeds, paired.

Each seed is a run of every stage in a folder of its own: its own splits, baseline, measurements,
predictor, policies and finetuning. SeerNet minus uniform (and minus random search) is taken within
a seed, so that what both share cancels out; every network of every method is finetuned five times
there, because one finetuning is noisy. A finished seed is kept as a small table, and only the
missing ones run, so the benchmark can be interrupted.

    python benchmarks/against_uniform.py --seeds 5 --jobs 2
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from seernet.store import code_digest, digest

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "against_uniform"
STORE = ROOT / ".store" / "against_uniform"
COPIED = ("stages", "src", "networks", "notebooks", "dvc.yaml", "requirements.lock")
CODE = ("compression", "data", "evaluation", "graph", "models", "optimization", "policy")
CODE += ("predictor", "sampling", "training")
# Quantiles of Student's t for 1 to 9 degrees of freedom: of a 95 % interval, which has two ends,
# and of a lower 95 % bound, which has one.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
STUDENT_BOUND = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833)


def main() -> None:
    """Run the missing seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds (default 5)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default 0)")
    parser.add_argument("--finetunings", type=int, default=5, help="of each network (default 5)")
    parser.add_argument("--jobs", type=int, default=1, help="seeds side by side (default 1)")
    parser.add_argument("--params", type=Path, default=ROOT / "params.yaml")
    arguments = parser.parse_args()
    if not 2 <= arguments.seeds <= len(STUDENT) + 1:
        parser.error(f"--seeds must lie between 2 and {len(STUDENT) + 1}")
    params = YAML().load(arguments.params.read_text(encoding="utf-8"))
    params["finetune"]["seeds"] = list(range(arguments.finetunings))
    counted = {key: value for key, value in params.items() if key not in ("seed", "report")}
    stages = [path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("stages/*.py"))]
    identity = digest([json.loads(json.dumps(counted)), code_digest(CODE), stages])
    with ThreadPoolExecutor(arguments.jobs) as pool:
        run = partial(run_seed, params=params, identity=identity)
        seeds = range(arguments.first, arguments.first + arguments.seeds)
        tables = list(pool.map(run, seeds))
    summary = summarize(pd.concat(tables))
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(render(summary))


def run_seed(seed: int, params: dict[str, Any], identity: str) -> pd.DataFrame:
    """The trade-off table of one seed: read if it was run before with the same code, else run."""
    path = RESULTS / f"seed-{seed}.csv"
    if path.exists():
        table = pd.read_csv(path)
        if set(table["identity"]) == {identity}:
            return table
    store = STORE / f"seed-{seed}"
    store.mkdir(parents=True, exist_ok=True)
    log = store / "log.txt"
    print(f"seed {seed} runs; its log is {log.relative_to(ROOT)}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="seernet-benchmark-") as folder:
        prepare_folder(Path(folder), {**params, "seed": seed})
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(Path(folder) / "src"),
            "SEERNET_STORE": str(store),
        }
        command = [sys.executable, "-m", "dvc", "repro", "--no-commit", "collect"]
        with log.open("w", encoding="utf-8") as output:
            done = subprocess.run(
                command, cwd=folder, env=environment, stdout=output, stderr=output, check=False
            )
        if done.returncode:
            raise SystemExit(f"error: the pipeline failed with seed {seed}; see {log}.")
        table = pd.read_csv(Path(folder) / "results" / "tradeoff.csv")
    table = table.rename(columns={"seed": "finetune_seed"})
    table.insert(0, "pipeline_seed", seed)
    table["identity"] = identity
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, lineterminator="\n")
    return table


def prepare_folder(folder: Path, params: dict[str, Any]) -> None:
    """A copy of the pipeline with its own parameters, outside of git."""
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in COPIED:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy2
        copy(source, folder / name, **({"ignore": ignore} if source.is_dir() else {}))
    for name in ("raw", "latency"):
        (folder / "data" / name).mkdir(parents=True)
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(params, file)
    (folder / ".dvc").mkdir()
    config = "[core]\n    analytics = false\n    check_update = false\n    no_scm = True\n"
    (folder / ".dvc" / "config").write_text(config, encoding="utf-8")


def summarize(table: pd.DataFrame) -> list[dict[str, float | str | int]]:
    """For each budget, mean scores and the paired differences with 95 % intervals, in points.

    `_bound` is the lower end of the one-sided interval.
    """
    scores = table.pivot_table(
        index=["budget", "pipeline_seed"], columns="method", values="test_score", aggfunc="mean"
    )
    cost = table[table["method"] == "seernet"].groupby("budget")["bops_ratio"].mean()
    baseline = table.groupby("budget")["baseline_score"].mean()
    rows: list[dict[str, float | str | int]] = []
    for budget in cost.sort_values().index:
        part = scores.loc[budget]
        row: dict[str, float | str | int] = {
            "budget": str(budget),
            "seeds": len(part),
            "bops_ratio": float(cost[budget]),
            "baseline": 100 * float(baseline[budget]),
            **{method: 100 * float(part[method].mean()) for method in part.columns},
        }
        for rival in ("uniform", "random"):
            gains = part["seernet"] - part[rival] if rival in part else pd.Series(dtype=float)
            points = [100 * x for x in gains.dropna()]
            mean, half = interval(points)
            row |= {f"minus_{rival}": mean, f"minus_{rival}_low": mean - half}
            row[f"minus_{rival}_high"] = mean + half
            row[f"minus_{rival}_bound"] = mean - interval(points, STUDENT_BOUND)[1]
        rows.append(row)
    return rows


def interval(values: list[float], quantiles: tuple[float, ...] = STUDENT) -> tuple[float, float]:
    """Mean and half width of the 95 % interval, or other quantiles' (Student)."""
    if len(values) < 2:
        return (values[0] if values else math.nan), math.nan
    spread = statistics.stdev(values) / math.sqrt(len(values))
    return statistics.mean(values), quantiles[len(values) - 2] * spread


def render(summary: list[dict[str, float | str | int]]) -> str:
    """The table for a terminal and the README (Markdown)."""
    lines = [
        "| budget | BOPs / baseline | baseline | SeerNet | uniform | random search "
        "| SeerNet - uniform | lower 95 % bound | SeerNet - random | lower 95 % bound |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in summary:
        cells = [str(row["budget"]), f"{row['bops_ratio']:.4f}"]
        methods = ("baseline", "seernet", "uniform", "random")
        cells += [f"{row[name]:.2f}" if name in row else "none" for name in methods]
        for rival in ("uniform", "random"):
            low, high = row[f"minus_{rival}_low"], row[f"minus_{rival}_high"]
            cells.append(f"{row[f'minus_{rival}']:+.2f} [{low:+.2f}, {high:+.2f}]")
            cells.append(f"{row[f'minus_{rival}_bound']:+.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
