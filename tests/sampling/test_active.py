"""The active loop: what it measures, in which order, and how it bears failures."""

import math

import pytest
import torch
from torch import nn

from seernet.config import PredictorConfig, SampleConfig, SpaceConfig
from seernet.errors import SeerNetError
from seernet.models import trace
from seernet.policy import FeatureMap, SearchSpace
from seernet.sampling import ActiveSampler, active, anchors
from seernet.sampling.acquisition import reduce_variance
from seernet.sampling.evolution import diverse


def test_rounds_have_the_sizes_of_the_parameters(finished):
    measured, calls, *_ = finished
    assert [len(call) for call in calls] == [12, 4, 4]
    assert [m.round for m in measured] == [0] * 12 + [1] * 4 + [2] * 4
    assert [m.origin for m in measured] == ["initial"] * 12 + ["active"] * 8


@pytest.mark.parametrize("acquisition", ["integrated", "variance", "gap", "random"])
def test_a_longer_run_starts_with_the_shorter_one(sampler, measuring, acquisition):
    first = sampler(acquisition=acquisition, evaluations=14).run(measuring())
    second = sampler(acquisition=acquisition, evaluations=16).run(measuring())
    assert [m.policy for m in first] == [m.policy for m in second][:14]


def test_rounds_do_not_depend_on_how_many_follow(sampler, measuring, finished):
    measured, *_ = finished
    shorter = sampler(evaluations=18).run(measuring())
    assert [m.policy for m in shorter] == [m.policy for m in measured][:18]


def test_nothing_is_measured_twice(finished):
    measured, *_ = finished
    assert len({m.policy.key() for m in measured}) == len(measured)


def test_all_policies_cost_what_the_range_allows(finished, space, cost):
    measured, *_ = finished
    ratio = cost(space.encode([m.policy for m in measured])).bops / cost.baseline().bops
    assert ratio.min() >= 0.001 and ratio.max() <= 0.02


def test_failed_measurements_are_kept_out_of_the_predictor(sampler, measuring):
    measured = sampler(evaluations=16).run(measuring(failing={1, 13}))
    assert [i for i, m in enumerate(measured) if m.score is None] == [1, 13]
    assert len(measured) == 16


def test_too_many_failures_end_the_loop_with_the_remedy(sampler, measuring):
    measure = measuring(failing=set(range(9)))
    with pytest.raises(SeerNetError, match=r"only 3 of 12 measurements succeeded.*learning_rate"):
        sampler().run(measure)


def test_scores_that_are_all_alike_end_the_loop_with_the_remedy(sampler):
    with pytest.raises(SeerNetError, match=r"all 12 policies .* score 0\.1.*learning_rate"):
        sampler().run(lambda policies: [0.1] * len(policies))


def test_half_of_the_initial_design_are_anchors(sampler):
    it = sampler()
    policies = it.initial_policies()
    assert len({policy.key() for policy in policies}) == 12
    first = it.space.decode(anchors(it.design, None, 6))
    assert len(first) >= 4 and policies[: len(first)] == first
    drawn = it.space.decode(it.design.draw_many(0, 12))
    rest = policies[len(first) :]
    assert [policy for policy in drawn if policy in rest] == rest


def test_random_policies_are_as_many_and_others_than_the_initial_ones(sampler):
    it = sampler()
    rivals = {policy.key() for policy in it.random_policies()}
    assert len(rivals) == 20
    assert not rivals & {policy.key() for policy in it.initial_policies()}


def test_frontier_asks_about_better_policies_than_variance(
    sampler, measuring, finished, space, truth, cost
):
    """At like cost, what the frontier asks about scores higher in truth."""

    def merit(measured):
        active = space.encode([m.policy for m in measured if m.origin == "active"])
        return float((truth(active) - 0.1 * cost(active).bops.log10()).mean())

    assert merit(finished[0]) > merit(sampler(acquisition="variance").run(measuring()))


def test_torch_generator_is_left_alone(finished):
    *_, before, after = finished
    assert torch.equal(before, after)


def test_measurements_that_lower_the_variance_most_are_found_one_by_one():
    # Brute force: condition a Gaussian on each possible next measurement, and sum what is left.
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    joint = root @ root.T
    noise = torch.rand(8, generator=generator, dtype=torch.float64) + 0.1
    weight = torch.rand(8, generator=generator, dtype=torch.float64)

    def left(measured: list[int]) -> float:
        among = joint[measured][:, measured] + torch.diag(noise[measured])
        explained = joint[:, measured] @ torch.linalg.solve(among, joint[measured])
        return float(weight @ (joint - explained).diagonal())

    expected: list[int] = []
    for _ in range(3):
        expected.append(
            min((i for i in range(8) if i not in expected), key=lambda i: left([*expected, i]))
        )
    assert reduce_variance(joint, noise, weight, 3) == expected
    assert reduce_variance(joint, noise, weight, 3, expected[:1]) == expected
    other = next(i for i in range(8) if i not in expected)
    best = min((i for i in range(8) if i != other), key=lambda i: left([other, i]))
    assert reduce_variance(joint, noise, weight, 2, [other]) == [other, best]


def test_the_integrated_acquisition_measures_nothing_twice_and_stays_in_the_range(
    sampler, measuring, space, cost
):
    measured = sampler(acquisition="integrated").run(measuring())
    assert len({m.policy.key() for m in measured}) == len(measured) == 20
    share = cost(space.encode([m.policy for m in measured])).bops / cost.baseline().bops
    assert (share >= 0.001).all()
    assert (share <= 0.02).all()


def test_a_small_space_is_measured_once_and_then_exhausted(caplog):
    convs = [nn.Conv2d(a, b, 3, bias=False) for a, b in ((1, 4), (4, 4), (4, 4))]
    graph = trace(nn.Sequential(*convs, nn.Flatten(), nn.Linear(16, 2)), (1, 8, 8))
    bits = {"weight_bits": [2, 4], "act_bits": [2, 4]}
    small = SearchSpace(graph, SpaceConfig(**bits, max_pruning_ratio=0.0))
    count = math.prod(len(level) for level in small.levels)
    assert count == 16
    config = SampleConfig(
        cost_range=[0.0001, 0.999], initial=6, batch=4, evaluations=2 * count, evaluation={}
    )
    with caplog.at_level("WARNING"):
        measured = ActiveSampler(small, config, PredictorConfig(), seed=3).run(
            lambda policies: FeatureMap(small)(small.encode(list(policies))).mean(dim=1).tolist()
        )
    assert len({m.policy.key() for m in measured}) == len(measured)
    assert len(measured) == count
    assert "no more than 16 policies" in caplog.text and "of the 32" in caplog.text


def test_a_range_of_hardly_a_policy_is_named_as_that(space):
    tiny = SearchSpace(space.graph, SpaceConfig(weight_bits=[8], act_bits=[8], pruning_step=0.75))
    config = SampleConfig(cost_range=[0.0610, 0.0625], initial=8, evaluations=8, evaluation={})
    sampler = ActiveSampler(tiny, config, PredictorConfig(), seed=0)
    few = len(sampler.initial_policies())
    assert few < 5
    with pytest.raises(SeerNetError, match=rf"holds {few} policies.*5 are needed.*widen the range"):
        sampler.run(lambda policies: [0.1 * i for i, _ in enumerate(policies)])


def test_many_known_policies_are_told_from_new_ones(space):
    generator = torch.Generator().manual_seed(0)
    known = torch.rand(60, space.dimension, generator=generator, dtype=torch.float64)
    known = space.round(known)
    assert len(active._new(known, known)) == 0
    values, niche = torch.ones(60, dtype=torch.float64), torch.zeros(60, dtype=torch.long)
    assert len(diverse(known, values, niche, known, 8)) == 0
    assert len(diverse(known, values, niche, known[:1], 0)) == 0
    assert len(diverse(known, values, niche, known[:1], 8)) == 8


def test_a_quarter_of_an_integrated_batch_is_what_the_ascent_would_choose(sampler, measuring):
    it = sampler(acquisition="integrated")
    fronts = []
    front_of = it._front
    it._front = lambda belief: fronts.append(front_of(belief)) or fronts[-1]
    measured = it.run(measuring())
    for number, front in enumerate(fronts, start=1):
        ahead = {policy.key() for policy in it.space.decode(front)}
        asked = [m.policy.key() for m in measured if m.round == number]
        assert asked[0] in ahead
    known = it.space.encode([m.policy for m in measured])[:1]
    for batch, expected in ((1, [0, 0, 0, 1]), (2, [0, 1, 0, 1]), (6, [1, 2]), (8, [2, 2])):
        chooser = sampler(acquisition="integrated", batch=batch)
        counts = [len(chooser._of_front(fronts[0], known, n + 1)) for n in range(len(expected))]
        assert counts == expected
