"""What several stage scripts share."""

from collections.abc import Sequence

from seernet import artifacts
from seernet.errors import SeerNetError
from seernet.evaluation import Evaluation, Folders
from seernet.store import default_root


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


def own_folders(stage: str, budget: str) -> Folders:
    """A budget's inputs, and a progress folder that no stage running beside it touches.

    Two budgets may choose the same policy, whose progress file has the same name.
    """
    progress = default_root() / "progress" / f"{stage}-{budget}"
    return Folders(artifacts.PREPARED, artifacts.BASELINE, progress)
