"""Progress bars that move on a terminal, and add a line now and then to a log."""

from __future__ import annotations

import sys
from typing import NoReturn, TypeAlias

from tqdm import tqdm

from seernet.distributed import leads

Bar: TypeAlias = "tqdm[NoReturn]"

SECONDS_BETWEEN_LINES = 30.0


class _Lines:
    """A stream for bars that end in a log: each state is a line of its own, not drawn over."""

    def write(self, text: str) -> None:
        """Write what `tqdm` draws; the moves of its cursor are left out."""
        if line := text.strip():
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        """Flush the log."""
        sys.stderr.flush()


def bar(total: int, description: str, unit: str, line: int = 0) -> Bar:
    """Open a progress bar on stderr; a context manager.

    Args:
        total: Number of units.
        description: What the bar says in front.
        unit: What is counted, in the singular.
        line: Line below the cursor, where several processes show a bar each.

    Returns:
        The bar. On a terminal it disappears when it is closed; elsewhere it writes one line about
        every 30 seconds, without carriage returns, and a last one. Of processes that train
        together, only the one that leads shows it.
    """
    if sys.stderr.isatty():
        return tqdm(
            total=total,
            desc=description,
            unit=unit,
            leave=False,
            position=line,
            disable=not leads(),
        )
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        disable=not leads(),
        file=_Lines(),
        ascii=True,
        mininterval=SECONDS_BETWEEN_LINES,
        maxinterval=SECONDS_BETWEEN_LINES,
    )
