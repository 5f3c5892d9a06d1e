"""The whole pipeline with the stages of all budgets side by side (`make repro JOBS=N`).

Not a stage. DVC itself runs one stage after the other, but locks the repository only between their
commands, so several `dvc repro` of single stages work at once. `dvc.lock` says the same in the end.

    python stages/parallel.py JOBS
"""

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from seernet.config import load
from seernet.errors import ConfigError, SeerNetError

logger = logging.getLogger("parallel")
DVC = (sys.executable, "-m", "dvc", "--wait-for-lock", "repro")
BEFORE = ("latency", "front")  # and all that these depend on
CHAINS = (("optimize", "finetune", "export"), ("baseline",))  # of each budget


def main() -> None:
    """Run what budgets share, then their stages side by side, then the rest."""
    jobs = sys.argv[1] if len(sys.argv) == 2 else ""
    if not jobs.isdecimal() or int(jobs) < 1:
        raise ConfigError(f"usage: {sys.argv[0]} JOBS, a whole number from 1, got {sys.argv[1:]}.")
    budgets = load().budgets
    serial(*BEFORE)
    chains = [[f"{stage}@{budget}" for stage in chain] for chain in CHAINS for budget in budgets]
    pool = ThreadPoolExecutor(int(jobs))
    try:
        failed = [stage for stage in pool.map(run_chain, chains) if stage]
    finally:
        pool.shutdown(cancel_futures=True)  # after an interrupt nothing new begins
    if failed:
        if all(stage.startswith("export@") for stage in failed):
            serial("report")  # which needs no exported file
        raise SeerNetError(
            f"{', '.join(failed)} failed, for the reason above; all other results are kept; "
            "mend it and run again."
        )
    serial()


def serial(*targets: str) -> None:
    """Run stages one after the other, with all that they depend on; without targets, all."""
    if subprocess.run([*DVC, *targets], check=False).returncode:
        raise SeerNetError(f"`dvc repro {' '.join(targets)}` failed, for the reason above.")


def run_chain(chain: list[str]) -> str | None:
    """Run stages that need each other; the one that failed, after which none is run, or None.

    What a stage says is shown when it ends: lines of several would mingle.
    """
    for stage in chain:
        command = [*DVC, "--single-item", stage]
        ended = subprocess.run(
            command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        sys.stdout.write(f"{ended.stdout.rstrip()}\n")
        sys.stdout.flush()
        if ended.returncode:
            return stage
        logger.info("%s is done", stage)
    return None


if __name__ == "__main__":
    from seernet.stage import run

    run(main)
