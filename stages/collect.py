"""Gather the finetuned networks of exactly the budgets in `params.yaml` into one table."""

import logging
from pathlib import Path

from seernet.config import load
from seernet.report import collect

logger = logging.getLogger("collect")


def main() -> None:
    """Write `results/tradeoff.csv`."""
    table = collect(load().budgets, Path("results/metrics"))
    logger.info("\n%s", table.drop(columns=["macs", "parameters"]).to_string(index=False))
    table.to_csv("results/tradeoff.csv", index=False, lineterminator="\n")


if __name__ == "__main__":
    from seernet.stage import run

    run(main)
