"""How long does each stage take to start, and `optimize` to solve a budget?

Start is the time until a stage script has imported all it names and read the parameters; the
median of three processes, after one that warms the disk's cache. `optimize` is timed whole, start
included, and by the row that it writes to `results/timings.csv`, for each budget; the pipeline must
have run.

    dvc repro && python benchmarks/startup.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

from seernet.config import load
from seernet.stage import TIMINGS

ROOT = Path(__file__).resolve().parents[1]
START = (
    "import runpy, sys; sys.path[0] = 'stages'; "
    "runpy.run_path(sys.argv[1], run_name='start'); from seernet.config import load; load()"
)


def main() -> None:
    """Time all stages and print the table."""
    os.chdir(ROOT)
    print("| stage | start, s | whole, s | of it in the stage, s |")
    print("| --- | --- | --- | --- |")
    for path in sorted(Path("stages").glob("[a-z]*.py")):
        command = [sys.executable, "-c", START, str(path)]
        start = statistics.median([seconds(command) for _ in range(4)][1:])
        if path.stem != "optimize":
            print(f"| {path.stem} | {start:.1f} | | |")
            continue
        for budget in load().budgets:
            whole = seconds([sys.executable, str(path), budget])
            inside = float(pd.read_csv(TIMINGS)["seconds"].iloc[-1])
            print(f"| {path.stem}@{budget} | {start:.1f} | {whole:.1f} | {inside:.1f} |")


def seconds(command: list[str]) -> float:
    """Wall time of a process that must succeed."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
