"""Gather the finetuned networks of exactly the budgets in `params.yaml` into one table."""

from pathlib import Path

from seernet.config import load
from seernet.report import collect


def main() -> None:
    """Write `results/tradeoff.csv`."""
    table = collect(load().budgets, Path("results/metrics"))
    table.to_csv("results/tradeoff.csv", index=False, lineterminator="\n")


if __name__ == "__main__":
    from seernet.stage import run

    run(main)
