"""What several stage scripts share."""

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from seernet import artifacts
from seernet.config import FEWEST_POLICIES
from seernet.errors import SeerNetError
from seernet.evaluation import Evaluation, Folders
from seernet.store import default_root

logger = logging.getLogger("measuring")


def require_one(evaluations: Sequence[Evaluation]) -> None:
    """Go on without some measurements that the machine made fail, but not without all of them.

    Raises:
        SeerNetError: If no other measurement is there; says why the first one failed.
    """
    failed = [evaluation for evaluation in evaluations if not evaluation.final]
    if failed and len(failed) == len(evaluations):
        require_final(evaluations)
    for evaluation in failed:
        logger.warning(
            "a policy is recorded as failed, because this machine cannot measure it (%s); `dvc "
            "repro -f sample` tries again.",
            evaluation.error,
        )


def require_trainable(evaluations: Sequence[Evaluation]) -> None:
    """Refuse to search on from an initial design of which hardly a policy can be trained.

    Raises:
        SeerNetError: Says why the first one failed.
    """
    trained = sum(evaluation.score is not None for evaluation in evaluations)
    errors = [e.error for e in evaluations if e.score is None and e.final]
    if errors and trained < FEWEST_POLICIES <= len(evaluations):
        raise SeerNetError(
            f"only {trained} of {len(evaluations)} policies could be trained, and "
            f"{FEWEST_POLICIES} are needed to go on ({errors[0]}); lower "
            "sample.evaluation.learning_rate, or check the network."
        )


def require_final(evaluations: Sequence[Evaluation]) -> None:
    """Refuse to go on with measurements that the machine, not the policy, made fail.

    Raises:
        SeerNetError: If there are any; says how many, and why the first one failed.
    """
    failed = [evaluation for evaluation in evaluations if not evaluation.final]
    if failed:
        raise SeerNetError(
            f"{len(failed)} of {len(evaluations)} measurements failed because of this machine, not "
            f"of their policies ({failed[0].error}); run again, with fewer sample.workers if "
            "memory ran out: only these are made, finished ones are kept."
        )


def own_folders(*stage: str) -> Folders:
    """Inputs of a stage (and budget), and a progress folder that none running beside it touches.

    Two budgets may choose the same policy, whose progress file has the same name, and so may other
    clones that share the store.
    """
    clone = hashlib.sha256(os.fsencode(Path.cwd())).hexdigest()[:8]
    progress = default_root() / "progress" / "-".join([*stage, clone])
    return Folders(artifacts.PREPARED, artifacts.BASELINE, progress)
