"""Uniform policies: one ratio, two widths, the costliest that fit and that none dominates."""

from seernet.policy import Bound
from seernet.sampling import uniform_candidates


def grades(space, points):
    """(kept fraction, weight bits, input bits) of each policy, read off its largest group."""
    found = []
    for policy in space.decode(points):
        inner = [name for name in policy.weight_bits if name not in space.fixed_bits]
        widths = {(policy.weight_bits[n], policy.act_bits[n]) for n in inner}
        assert len(widths) == 1
        largest = max(space.graph.groups, key=lambda g: g.channels)
        found.append((1 - policy.pruning_ratio[largest.name], *widths.pop()))
    return found


def test_candidates_fit_and_come_dearest_first(space, cost):
    limit = 0.005 * float(cost.baseline().bops)
    points = uniform_candidates(cost, [Bound("bops", limit)])
    bops = cost(points).bops
    assert len(points) == 8
    assert bops.max() <= limit
    assert bops.tolist() == sorted(bops.tolist(), reverse=True)


def test_no_candidate_dominates_another(space, cost):
    limit = 0.005 * float(cost.baseline().bops)
    found = grades(space, uniform_candidates(cost, [Bound("bops", limit)], count=1000))
    for one in found:
        for other in found:
            assert one == other or not all(a >= b for a, b in zip(one, other, strict=True))


def test_a_budget_for_everything_leaves_the_dearest_policy_alone(space, cost):
    points = uniform_candidates(cost, [Bound("bops", float("inf"))])
    assert grades(space, points) == [(1.0, 8, 8)]


def test_two_limits_both_hold(space, cost):
    limits = [Bound("bops", 5e6), Bound("size_bytes", 9000.0)]
    costs = cost(uniform_candidates(cost, limits))
    assert costs.bops.max() <= 5e6 and costs.size_bytes.max() <= 9000.0


def test_a_hopeless_budget_has_no_candidate(cost):
    assert len(uniform_candidates(cost, [Bound("bops", 1.0)])) == 0
