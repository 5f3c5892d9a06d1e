"""What every stage script shares: a log on stderr, errors without a traceback, a row of timings.

Wall times differ between two equal runs, so they go to `results/timings.csv`, which neither git nor
DVC tracks, and never into an output.
"""

from __future__ import annotations

import csv
import errno
import io
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from seernet.allocator import recycle
from seernet.distributed import leads
from seernet.errors import ConfigError, SeerNetError

TIMINGS = Path("results/timings.csv")
COLUMNS = ("stage", "arguments", "start_utc", "seconds", "status")
INTERRUPTED = 130  # 128 + SIGINT, what a shell reports for a program ended by Ctrl-C
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# What libraries that hide the errno say: safetensors, and SQLite.
DISK_FULL_TEXTS = ("no space left on device", "database or disk is full")
NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)
NOT_WRITABLE_TEXTS = ("read-only file system", "permission denied", "attempt to write a readonly")
# What NumPy, torch and CUDA say.
OUT_OF_MEMORY_TEXTS = ("out of memory", "unable to allocate", "allocate memory")

logger = logging.getLogger(__name__)


class _Formatter(logging.Formatter):
    """`12:30:00 message` for news, `error: message` for what the user should act on."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        if record.levelno < logging.WARNING:
            return f"{self.formatTime(record, '%H:%M:%S')} {record.message}"
        return f"{record.levelname.lower()}: {record.message}"


def run(main: Callable[[], None]) -> None:
    """Run a stage script's `main` as its entry point.

    Logs from level INFO go to stderr. Whatever happens, one row is appended to
    `results/timings.csv`: stage, arguments, start (UTC), wall time in seconds, exit status. Of
    processes that train together, those that do not lead log errors alone, and append none.

    Args:
        main: The stage; reads its own arguments from `sys.argv`.

    Raises:
        SystemExit: With status 1 after a `SeerNetError`, on a full or write-protected disk, or
            without memory, 130 after an interrupt; the reason is logged in one line, without a
            traceback. A `SystemExit` of `main` and any other exception, which is a defect, pass
            through.
    """
    recycle()
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter())
    logging.basicConfig(level=logging.INFO if leads() else logging.ERROR, handlers=[handler])
    start, clock, status = datetime.now(UTC), time.monotonic(), 1
    try:
        status = _run(main)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        raise
    finally:
        if leads():
            _record(start, time.monotonic() - clock, status)
    if status:
        raise SystemExit(status)


def _run(main: Callable[[], None]) -> int:
    """Run `main`; log what a user can act on; return the exit status."""
    try:
        main()
    except SeerNetError as error:
        logger.error("%s", error)
        return 1
    except KeyboardInterrupt:
        logger.warning("interrupted; finished measurements are kept and will not be made again.")
        return INTERRUPTED
    except Exception as error:
        chain = list(_chain(error))
        if any(_says(e, DISK_FULL, DISK_FULL_TEXTS) for e in chain):
            remedy = "the disk is full (%s); free some space and run again"
        elif any(_says(e, NOT_WRITABLE, NOT_WRITABLE_TEXTS) for e in chain):
            remedy = "a file or folder cannot be written (%s); see that it may be, and run again"
        elif any(isinstance(e, MemoryError) or _says(e, (), OUT_OF_MEMORY_TEXTS) for e in chain):
            remedy = (
                "memory ran out (%s); run with fewer processes (sample.workers, JOBS), which "
                "changes no result, or lower data.image_size or a batch_size"
            )
        else:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        logger.error(f"{remedy}: finished measurements are kept.", reason)
        return 1
    return 0


def _says(error: BaseException, numbers: tuple[int, ...], texts: tuple[str, ...]) -> bool:
    if isinstance(error, OSError) and error.errno in numbers:
        return True
    return any(text in str(error).lower() for text in texts)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, what it was raised from, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def _record(start: datetime, seconds: float, status: int) -> None:
    """Append a row of timings; a failure to do so is no reason to fail the stage."""
    row = (
        Path(sys.argv[0]).stem,
        " ".join(sys.argv[1:]),
        start.isoformat(timespec="seconds"),
        f"{seconds:.1f}",
        status,
    )
    if not Path("params.yaml").exists():
        return  # not in a pipeline's folder: leave no litter
    try:
        TIMINGS.parent.mkdir(parents=True, exist_ok=True)
        # Stages of several budgets may run side by side.
        with FileLock(f"{TIMINGS}.lock"), TIMINGS.open("a", encoding="utf-8", newline="") as file:
            lines = io.StringIO()
            writer = csv.writer(lines, lineterminator="\n")
            if file.tell() == 0:
                writer.writerow(COLUMNS)
            writer.writerow(row)
            file.write(lines.getvalue())
    except OSError as error:
        logger.warning("no timing recorded: %s", error)


def budget_argument(arguments: Sequence[str], budgets: Mapping[str, object]) -> str:
    """The budget that a stage script is called with, as its only argument.

    Raises:
        ConfigError: If it is missing or is not a key of `budgets`.
    """
    known = ", ".join(budgets)
    if len(arguments) != 2:
        raise ConfigError(f"usage: {arguments[0]} BUDGET, one of the budgets: {known}.")
    if arguments[1] not in budgets:
        raise ConfigError(
            f"there is no budget `{arguments[1]}` in params.yaml; choose from: {known}."
        )
    return arguments[1]
