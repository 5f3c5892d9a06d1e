"""Gather the finetuned networks of exactly the budgets in `params.yaml` into one table."""

import logging

from seernet import artifacts
from seernet.config import load
from seernet.report import collect

logger = logging.getLogger("collect")


def main() -> None:
    """Write `results/tradeoff.csv`."""
    table = collect(load().budgets, artifacts.METRICS)
    logger.info("\n%s", table.drop(columns=["macs", "parameters"]).to_string(index=False))
    table.to_csv(artifacts.TRADEOFF, index=False, lineterminator="\n")


if __name__ == "__main__":
    from seernet.stage import run

    run(main)
