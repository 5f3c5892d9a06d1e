"""The feature that adds up what single places bear: by hand, monotone, differentiable."""

import math
from pathlib import Path

import pytest
import torch

from seernet.config import SpaceConfig
from seernet.errors import ArtifactError
from seernet.graph import NetworkGraph
from seernet.policy import (
    FULL_BITS,
    FeatureMap,
    Probe,
    SearchSpace,
    Sensitivity,
    probe_policy,
    probes,
    save_divergences,
)

FLOOR = 1e-4


@pytest.fixture
def space(hand: NetworkGraph) -> SearchSpace:
    return SearchSpace(hand, SpaceConfig(weight_bits=[2, 3, 4, 8], act_bits=[2, 8]))


@pytest.fixture
def measured(space: SearchSpace) -> list[tuple[Probe, float]]:
    """Above a floor of 0.05: 0.4 at the cheapest levels, 0.1 at others, 0 at 4 weight bits."""
    cheapest = {(c.kind, c.name): c.values[0] for c in space.coordinates}
    found = []
    for p in probes(space):
        rest = 0.0 if (p.kind, p.value) == ("weight_bits", 4) else 0.1
        found.append((p, 0.05 + (0.4 if p.value == cheapest[p.kind, p.name] else rest)))
    return found


def test_probes_are_the_two_cheapest_levels_and_the_middle(space: SearchSpace) -> None:
    found = [p.value for p in probes(space) if (p.kind, p.name) == ("weight_bits", "deep")]
    assert found == [2, 3, 4]
    assert [p.value for p in probes(space) if p.kind == "act_bits"] == [2, 2]


def test_probe_compresses_one_place_alone(space: SearchSpace) -> None:
    policy = probe_policy(space, Probe("weight_bits", "deep", 3))
    assert policy.weight_bits.pop("deep") == 3
    assert {*policy.weight_bits.values(), *policy.act_bits.values()} == {FULL_BITS}
    assert set(policy.pruning_ratio.values()) == {0.0}
    pruned = probe_policy(space, Probe("pruning_ratio", "first", 2))
    assert pruned.pruning_ratio["first"] == 0.75


def test_feature_by_hand(space: SearchSpace, measured: list[tuple[Probe, float]]) -> None:
    sensitivity = Sensitivity(space, measured)
    count = space.dimension
    u = torch.ones(4, count, dtype=torch.float64)
    u[0] = 0.0
    weights = next(i for i, c in enumerate(space.coordinates) if c.kind == "weight_bits")
    u[2, weights] = space.levels[weights][1]  # 0.1 of 0.4 * count
    u[3, weights] = space.levels[weights][1:3].mean()  # half way from 0.1 to 0
    shares = torch.tensor([1.0, 0.0, 0.25 / count, 0.125 / count], dtype=torch.float64)
    expected = 1 - ((shares + FLOOR) / (1 + FLOOR)).sqrt()
    torch.testing.assert_close(sensitivity(u), expected)
    assert float(sensitivity(u)[0]) == pytest.approx(0.0)


def test_feature_never_falls_and_has_finite_slopes(
    space: SearchSpace, measured: list[tuple[Probe, float]]
) -> None:
    odd = [(p, 0.5 if p.value == 3 else d) for p, d in measured]  # noise: it rises with the bits
    sensitivity = Sensitivity(space, odd)
    generator = torch.Generator().manual_seed(0)
    u = torch.rand(64, space.dimension, generator=generator, dtype=torch.float64)
    u = torch.cat([u, torch.ones_like(u[:1])]).requires_grad_()
    (slope,) = torch.autograd.grad(sensitivity(u).sum(), u)
    assert bool(slope.isfinite().all()) and float(slope.min()) >= 0.0


def test_places_that_bear_everything_give_a_constant(space: SearchSpace) -> None:
    sensitivity = Sensitivity(space, [(p, 0.0) for p in probes(space)])
    found = sensitivity(torch.rand(5, space.dimension, dtype=torch.float64))
    assert found.tolist() == pytest.approx([1 - math.sqrt(FLOOR / (1 + FLOOR))] * 5)


def test_a_coordinate_that_was_not_probed_is_named(
    space: SearchSpace, measured: list[tuple[Probe, float]]
) -> None:
    with pytest.raises(ArtifactError, match=r"act_bits of 'deep'.*run the sample stage"):
        Sensitivity(
            space, [(p, d) for p, d in measured if (p.kind, p.name) != ("act_bits", "deep")]
        )


def test_file_gives_the_same_feature(
    tmp_path: Path, space: SearchSpace, measured: list[tuple[Probe, float]]
) -> None:
    path = tmp_path / "sensitivities.json"
    save_divergences(path, measured)
    u = torch.rand(5, space.dimension, dtype=torch.float64)
    assert torch.equal(Sensitivity.load(space, path, "sample")(u), Sensitivity(space, measured)(u))
    path.write_text('{"divergences": [{"kind": "weight_bits"}]}')
    with pytest.raises(ArtifactError, match=r"is damaged.*dvc repro sample"):
        Sensitivity.load(space, path, "sample")


def test_feature_map_takes_it_up(space: SearchSpace, measured: list[tuple[Probe, float]]) -> None:
    sensitivity = Sensitivity(space, measured)
    features = FeatureMap(space, sensitivity)
    u = torch.rand(3, space.dimension, dtype=torch.float64)
    assert features.names[-1] == "sensitivity"
    assert torch.equal(features(u)[:, -1], sensitivity(u))
    assert torch.equal(features(u)[:, :-1], FeatureMap(space)(u))
