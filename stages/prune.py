"""Remove what budgets that are no longer in `params.yaml` left behind (`make prune`).

Not a stage: DVC forgets a removed budget's outputs, but deletes neither them nor its own records.
"""

import logging
import shutil
from collections.abc import Container

from ready import LOCK, check_lock
from ruamel.yaml import YAML

from seernet import artifacts
from seernet.config import load

logger = logging.getLogger("prune")

STAGES = ("optimize", "finetune", "export", "baseline")
FILES = (artifacts.POLICIES, *(artifacts.METRICS / stage for stage in STAGES))
FOLDERS = (artifacts.FINETUNED, artifacts.EXPORTED, artifacts.TRAINING / "finetune")


def main() -> None:
    """Remove policies, networks, metrics, curves and lock entries of removed budgets."""
    budgets = load().budgets
    check_lock()
    found = [path for folder in FILES for path in folder.glob("*.json")]
    found += [path for folder in FOLDERS for path in folder.glob("*") if path.is_dir()]
    gone = sorted(path for path in found if path.stem not in budgets)
    for path in gone:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        logger.info("removed %s", path)
    records = forget(budgets)
    logger.info("%d files and folders, %d records in dvc.lock removed", len(gone), records)


def forget(budgets: Container[str]) -> int:
    """Remove the records of budgets other than these from `dvc.lock`; returns how many."""
    if not LOCK.exists():
        return 0
    layout = YAML()  # keeps the order and the style of what it reads
    document = layout.load(LOCK.read_text(encoding="utf-8"))
    stages = document["stages"]
    names = [name.partition("@") for name in stages]
    gone = [f"{s}@{b}" for s, _, b in names if s in STAGES and b and b not in budgets]
    for name in gone:
        del stages[name]
    if gone:
        with LOCK.open("w", encoding="utf-8") as file:
            layout.dump(document, file)
    return len(gone)


if __name__ == "__main__":
    from seernet.stage import run

    run(main)
