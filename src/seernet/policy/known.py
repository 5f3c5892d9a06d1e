"""The policies that a predictor learned from, beside it: the optimizer searches around them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from seernet import artifacts
from seernet.errors import ArtifactError, PolicyError
from seernet.policy.policy import Policy
from seernet.policy.space import SearchSpace


def save_policies(path: Path, policies: Sequence[Policy]) -> None:
    """Write policies as JSON."""
    artifacts.write_json(path, {"policies": [policy.to_dict() for policy in policies]})


def load_policies(path: Path, space: SearchSpace, stage: str) -> Tensor:
    """Read what `save_policies` wrote: points of the space, `n x d`.

    Raises:
        ArtifactError: If it is missing or damaged; names `stage`.
        PolicyError: If it is of another space.
    """
    document = artifacts.read_json(path, stage)
    try:
        policies = [Policy.from_dict(record) for record in document["policies"]]
    except (KeyError, TypeError, PolicyError) as error:
        raise ArtifactError(f"{path} is damaged ({error!r}); run `dvc repro {stage}`.") from error
    return space.encode(policies)
