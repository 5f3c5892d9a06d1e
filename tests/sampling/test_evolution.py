"""The evolutionary search climbs, stays inside the range, and serves every cost class."""

import torch

from seernet.sampling import Evolution, SpreadDesign, diverse


def make(space, niches=4, generations=15):
    design = SpreadDesign(space, (0.001, 0.03), seed=0)
    return Evolution(design, niches, generations, seed=1), design.draw_many(0, 48)


def distance_to_half(u):
    return 10.0 - (u - 0.5).abs().sum(dim=1) / u.shape[1]


def test_search_improves_every_niche_and_never_loses_its_best(space):
    evolution, start = make(space)
    end = evolution.run(distance_to_half, start)
    for niche in range(4):
        before = distance_to_half(start[evolution.niche(start) == niche]).max()
        after = distance_to_half(end[evolution.niche(end) == niche]).max()
        assert after > before + 0.02


def test_population_stays_discrete_distinct_and_inside(space):
    evolution, start = make(space)
    end = evolution.run(distance_to_half, start)
    assert len(end.unique(dim=0)) == len(end) <= len(start)
    assert bool(evolution.design.inside(end).all())
    assert torch.equal(end, space.round(end))


def test_search_is_repeatable(space):
    evolution, start = make(space, generations=3)
    first = evolution.run(distance_to_half, start.clone())
    assert torch.equal(first, evolution.run(distance_to_half, start.clone()))


def test_niches_are_equally_wide_in_log_cost(space, cost):
    evolution, start = make(space, niches=2)
    ratio = cost(start).bops / cost.baseline().bops
    middle = (0.001 * 0.03) ** 0.5
    assert torch.equal(evolution.niche(start) == 1, ratio >= middle)


def test_batch_takes_turns_between_niches():
    population = torch.tensor([[0.0, 0.0], [0.9, 0.1], [0.5, 0.5], [1.0, 1.0]]).double()
    values = torch.tensor([4.0, 3.0, 2.0, 1.0]).double()
    niche = torch.tensor([0, 0, 0, 1])
    known = torch.full((1, 2), 0.4).double()
    batch = diverse(population, values, niche, known, 2)
    assert batch.tolist() == [[0.0, 0.0], [1.0, 1.0]]


def test_batch_prefers_distance_to_near_twins():
    population = torch.tensor([[0.0, 0.0], [0.01, 0.0], [1.0, 1.0]]).double()
    values = torch.tensor([1.0, 0.99, 0.9]).double()
    one_niche = torch.zeros(3, dtype=torch.long)
    known = torch.full((1, 2), 0.5).double()
    batch = diverse(population, values, one_niche, known, 2)
    assert batch.tolist() == [[0.0, 0.0], [1.0, 1.0]]


def test_batch_never_repeats_a_measured_policy():
    population = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double()
    batch = diverse(
        population, torch.ones(2).double(), torch.zeros(2, dtype=torch.long), population[:1], 2
    )
    assert batch.tolist() == [[1.0, 1.0]]
