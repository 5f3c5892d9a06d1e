"""The active loop: what it measures, in which order, and how it bears failures."""

import pytest
import torch

from seernet.errors import SeerNetError


def measuring(space, truth, failing=()):
    calls = []

    def measure(policies):
        start = sum(len(call) for call in calls)
        calls.append(policies)
        scores = truth(space.encode(list(policies))).tolist()
        return [None if start + i in failing else s for i, s in enumerate(scores)]

    return measure, calls


def test_rounds_have_the_sizes_of_the_parameters(sampler, space, truth):
    measure, calls = measuring(space, truth)
    measured = sampler().run(measure)
    assert [len(call) for call in calls] == [12, 4, 4]
    assert [m.round for m in measured] == [0] * 12 + [1] * 4 + [2] * 4
    assert [m.origin for m in measured] == ["initial"] * 12 + ["active"] * 8


@pytest.mark.parametrize("acquisition", ["frontier", "variance", "gap", "random"])
def test_a_longer_run_starts_with_the_shorter_one(sampler, space, truth, acquisition):
    short, _ = measuring(space, truth)
    long, _ = measuring(space, truth)
    first = sampler(acquisition=acquisition, evaluations=14).run(short)
    second = sampler(acquisition=acquisition, evaluations=20).run(long)
    assert [m.policy for m in first] == [m.policy for m in second][:14]


def test_nothing_is_measured_twice(sampler, space, truth):
    measure, _ = measuring(space, truth)
    measured = sampler().run(measure)
    assert len({m.policy.key() for m in measured}) == len(measured)


def test_all_policies_cost_what_the_range_allows(sampler, space, truth, cost):
    measure, _ = measuring(space, truth)
    measured = sampler().run(measure)
    ratio = cost(space.encode([m.policy for m in measured])).bops / cost.baseline().bops
    assert ratio.min() >= 0.001 and ratio.max() <= 0.02


def test_failed_measurements_are_kept_out_of_the_predictor(sampler, space, truth):
    measure, _ = measuring(space, truth, failing={1, 13})
    measured = sampler().run(measure)
    assert [i for i, m in enumerate(measured) if m.score is None] == [1, 13]
    assert len(measured) == 20


def test_too_many_failures_end_the_loop_with_the_remedy(sampler, space, truth):
    measure, _ = measuring(space, truth, failing=set(range(9)))
    with pytest.raises(SeerNetError, match=r"only 3 of 12 measurements succeeded.*learning_rate"):
        sampler().run(measure)


def test_random_policies_are_as_many_and_others_than_the_initial_ones(sampler):
    it = sampler()
    rivals = {policy.key() for policy in it.random_policies()}
    assert len(rivals) == 20
    assert not rivals & {policy.key() for policy in it.initial_policies()}


def test_frontier_asks_about_better_policies_than_variance(sampler, space, truth, cost):
    """At like cost, what the frontier asks about scores higher in truth."""
    means = {}
    for acquisition in ("frontier", "variance"):
        measure, _ = measuring(space, truth)
        measured = sampler(acquisition=acquisition, evaluations=28).run(measure)
        active = space.encode([m.policy for m in measured if m.origin == "active"])
        residual = truth(active) - 0.1 * cost(active).bops.log10()
        means[acquisition] = float(residual.mean())
    assert means["frontier"] > means["variance"]


def test_torch_generator_is_left_alone(sampler, space, truth):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    measure, _ = measuring(space, truth)
    sampler(evaluations=16).run(measure)
    assert torch.equal(torch.rand(1), expected)
