"""Training curves through DVCLive, in a form that two equal runs write alike."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

logger = logging.getLogger(__name__)


class Curves:
    """One folder of curves, `plots/metrics` below the given one; a context manager.

    The folder is there even without any epoch: it is an output of a stage, and DVC wants it.

    Where DVCLive is not installed (a training machine without DVC), or the repository has no commit
    yet, which DVCLive does not bear, no curve is drawn, and the log says so.

    Args:
        folder: Output folder; made anew.
    """

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder / "plots", ignore_errors=True)
        self._live = _open(folder)
        (folder / "plots/metrics").mkdir(parents=True, exist_ok=True)  # DVCLive clears its folder

    def log(self, row: dict[str, float]) -> None:
        """Add one epoch: each entry but `epoch` is a curve."""
        if self._live is None:
            return
        self._live.step = int(row["epoch"])
        for name, value in row.items():
            if name != "epoch":
                self._live.log_metric(name, value)
        self._live.make_summary()

    def log_seed(self, seed: int, row: dict[str, float]) -> None:
        """Add one epoch of one of several runs, each with curves of its own."""
        self.log({name if name == "epoch" else f"seed_{seed}/{name}": v for name, v in row.items()})

    def close(self) -> None:
        """Write what is left."""
        if self._live is not None:
            self._live.end()

    def __enter__(self) -> Curves:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _open(folder: Path) -> Any:
    """DVCLive on a folder, or None, with a warning that says why."""
    try:
        from dvclive import Live
        from scmrepo.exceptions import SCMError
    except ImportError:
        logger.warning("dvclive is not installed: no training curves in %s", folder)
        return None
    logging.getLogger("dvclive").setLevel(logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return Live(
            str(folder), save_dvc_exp=False, dvcyaml=None, report=None, monitor_system=False
        )
    except SCMError as error:
        logger.warning("no training curves in %s: %s; make a first commit", folder, error)
        return None
