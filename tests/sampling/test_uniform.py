"""Uniform policies: one ratio, two widths, the costliest that fit and that none dominates."""

import math

from seernet.policy import Bound
from seernet.sampling import SpreadDesign, uniform_anchors, uniform_candidates


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
    points = uniform_candidates(space, [Bound("bops", limit)])
    bops = cost(points).bops
    assert len(points) == 8
    assert bops.max() <= limit
    assert bops.tolist() == sorted(bops.tolist(), reverse=True)


def test_no_candidate_dominates_another(space, cost):
    limit = 0.005 * float(cost.baseline().bops)
    found = grades(space, uniform_candidates(space, [Bound("bops", limit)], count=1000))
    for one in found:
        for other in found:
            assert one == other or not all(a >= b for a, b in zip(one, other, strict=True))


def test_a_budget_for_everything_leaves_the_dearest_policy_alone(space):
    points = uniform_candidates(space, [Bound("bops", float("inf"))])
    assert grades(space, points) == [(1.0, 8, 8)]


def test_two_limits_both_hold(space, cost):
    limits = [Bound("bops", 5e6), Bound("size_bytes", 9000.0)]
    costs = cost(uniform_candidates(space, limits))
    assert costs.bops.max() <= 5e6 and costs.size_bytes.max() <= 9000.0


def test_a_hopeless_budget_has_no_candidate(space):
    assert len(uniform_candidates(space, [Bound("bops", 1.0)])) == 0


def test_anchors_are_uniform_spread_over_cost_and_balanced(space, cost):
    design = SpreadDesign(space, (0.001, 0.02), seed=0)
    points = uniform_anchors(design, 6)
    assert design.inside(points).all()
    place = (cost(points).bops / design.low).log() / math.log(20) * 6
    assert place.floor().tolist() == [0, 1, 2, 3, 4, 5]
    for kept, weight_bits, act_bits in grades(space, points):
        heights = [
            math.log(kept / 0.25, 4),
            math.log(weight_bits / 2, 4),
            math.log(act_bits / 2, 4),
        ]
        assert max(heights) - min(heights) < 0.5


def test_strata_without_uniform_policies_give_no_anchor(space):
    design = SpreadDesign(space, (0.001, 0.02), seed=0)
    few = uniform_anchors(design, 500)
    assert 20 < len(few) < 500
    assert len(few.unique(dim=0)) == len(few)
