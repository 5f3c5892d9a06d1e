"""Execute the notebooks, which draw the figures, and write the page that shows them."""

import logging
from pathlib import Path

from seernet import artifacts
from seernet.config import load
from seernet.report import Artifacts
from seernet.report.execute import execute_all
from seernet.report.page import render

logger = logging.getLogger("report")

SOURCES = Path("notebooks")


def main() -> None:
    """Write `results/notebooks/`, `results/figures/` and `results/report/index.html`."""
    params = load()
    notebooks = sorted(SOURCES.glob("[0-9]_*.ipynb"))
    executed = execute_all(notebooks, artifacts.NOTEBOOKS, {"dpi": params.report.dpi})
    artifacts.PAGE.parent.mkdir(parents=True, exist_ok=True)
    links = [f"../notebooks/{path.name}" for path in executed]
    html = render(params, Artifacts(), artifacts.FIGURES, links)
    artifacts.PAGE.write_text(html, encoding="utf-8")
    logger.info("open %s", artifacts.PAGE)


if __name__ == "__main__":
    from seernet.stage import run

    run(main)
