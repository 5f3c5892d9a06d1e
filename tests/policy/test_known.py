"""The policies kept beside a predictor."""

from pathlib import Path

import pytest
import torch

from seernet.config import SpaceConfig
from seernet.errors import ArtifactError
from seernet.graph import NetworkGraph
from seernet.policy import SearchSpace, load_policies, save_policies


@pytest.fixture
def space(hand: NetworkGraph) -> SearchSpace:
    return SearchSpace(hand, SpaceConfig())


def test_policies_come_back_as_points(space: SearchSpace, tmp_path: Path) -> None:
    points = space.round(torch.rand(5, space.dimension, dtype=torch.float64))
    save_policies(tmp_path / "policies.json", space.decode(points))
    found = load_policies(tmp_path / "policies.json", space, "fit")
    torch.testing.assert_close(found, points)


def test_missing_or_damaged_policies_name_the_stage(space: SearchSpace, tmp_path: Path) -> None:
    path = tmp_path / "policies.json"
    for text in (None, "{}", '{"policies": 3}', '{"policies": [{}]}'):
        if text is not None:
            path.write_text(text, encoding="utf-8")
        with pytest.raises(ArtifactError, match="dvc repro fit"):
            load_policies(path, space, "fit")
