"""Execute the notebooks, which draw the figures, and write the page that shows them."""

import logging
from pathlib import Path

from seernet.config import load
from seernet.report import Artifacts
from seernet.report.execute import execute_all
from seernet.report.page import render

logger = logging.getLogger("report")

NOTEBOOKS = Path("notebooks")
RESULTS = Path("results")


def main() -> None:
    """Write `results/notebooks/`, `results/figures/` and `results/report/index.html`."""
    params = load()
    notebooks = sorted(NOTEBOOKS.glob("[0-9]_*.ipynb"))
    executed = execute_all(notebooks, RESULTS / "notebooks", {"dpi": params.report.dpi})
    page = RESULTS / "report/index.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    links = [f"../notebooks/{path.name}" for path in executed]
    html = render(params, Artifacts(), RESULTS / "figures", links)
    page.write_text(html, encoding="utf-8")
    logger.info("open %s", page)


if __name__ == "__main__":
    from seernet.stage import run

    run(main)
