"""Gradient ascent inside the budget.

    maximize J(u) + mu * sum_j log(1 - cost_j(u) / budget_j),   J = mean - kappa * std

with bias-corrected first and second moments of the gradient (Kingma & Ba 2015, Adam, alg. 1), a
barrier weight mu that falls towards zero (Boyd & Vandenberghe 2004, Convex Optimization, sec.
11.3), and a step that is halved, for each start by itself, until it stays strictly feasible.

Deviations from the paper (Wang et al. 2023): the predictor's uncertainty is subtracted, all starts
climb at once, and no step ever leaves the budget, where the paper clips afterwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from seernet.optimization.problem import Problem

# A shorter memory than Adam's usual 0.999: the climb is short, and gradients change at the budget.
BETA1, BETA2, EPSILON = 0.9, 0.98, 1e-12
FINAL_WEIGHT = 1e-3  # last barrier weight, relative to the first
FINAL_RATE = 0.05  # last learning rate, relative to the first
HALVINGS = 12


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to climb.

    Attributes:
        iterations: Gradient steps.
        learning_rate: First step size, in relaxed units.
        barrier_weight: First weight mu, relative to the spread of the objective over the starts.
    """

    iterations: int
    learning_rate: float
    barrier_weight: float


@dataclass(frozen=True)
class Region:
    """Where `n` starts may go.

    Attributes:
        low: Lower corner of the box, `d`.
        high: Upper corner, `d`.
        budgets: Each start's budgets, `n x l`.
    """

    low: Tensor
    high: Tensor
    budgets: Tensor


def ascend(problem: Problem, starts: Tensor, region: Region, schedule: Schedule) -> Tensor:
    """Climb from all starts at once.

    Args:
        problem: Objective and costs.
        starts: `n x d`, strictly feasible.
        region: Box and budgets.
        schedule: Steps.

    Returns:
        `n x d` points, strictly feasible.
    """
    u = starts
    first, second = torch.zeros_like(u), torch.zeros_like(u)
    with torch.no_grad():
        # Scores lie in [0, 1], predictions of far policies need not. Scores that do not vary over
        # the starts would switch the barrier off: keep a floor.
        scores = problem.objective(u).clamp(-1.0, 1.0)
        spread = float(scores.std(correction=0).clamp_min(1e-6))
    for step in range(schedule.iterations):
        progress = step / max(schedule.iterations - 1, 1)
        weight = schedule.barrier_weight * spread * FINAL_WEIGHT**progress
        cosine = (1 + math.cos(math.pi * progress)) / 2
        rate = schedule.learning_rate * (FINAL_RATE + (1 - FINAL_RATE) * cosine)
        gradient = _gradient(problem, u, region.budgets, weight, band=rate)
        first = BETA1 * first + (1 - BETA1) * gradient
        second = BETA2 * second + (1 - BETA2) * gradient.square()
        direction = first / (1 - BETA1 ** (step + 1))
        direction = direction / ((second / (1 - BETA2 ** (step + 1))).sqrt() + EPSILON)
        u = _step_inside(problem, u, rate * direction, region)
    return u


def _gradient(problem: Problem, u: Tensor, budgets: Tensor, weight: float, band: float) -> Tensor:
    """Gradient of the objective minus each limit's multiplier times its cost's gradient, `n x d`.

    The log barrier's multiplier is weight / (budget - cost). Per-coordinate step sizes are blind
    to a gradient's size: beside the budget, where every coordinate would gain, all would rise
    alike, the step would be cut to nothing, and the start would stick. So within the band the
    multiplier is at least the one that leaves no first-order gain along the cost's gradient (the
    least-squares estimate; Nocedal & Wright 2006, Numerical Optimization, sec. 18.3), and the
    start trades one coordinate for another. It is at most twice that: next to the budget the
    barrier is so steep that one such gradient would blow up the second moment, and with it stop
    the start for the many steps that the moment remembers.
    """
    with torch.enable_grad():
        point = u.detach().requires_grad_()
        (total,) = torch.autograd.grad(problem.objective(point).sum(), point)
        costs = problem.cost(point)
        slopes = [
            torch.autograd.grad(cost.sum(), point, retain_graph=True)[0]
            for cost in costs.unbind(dim=1)
        ]
    room = budgets - costs.detach()
    for j, slope in enumerate(slopes):
        multiplier = weight / room[:, j]
        aligned = (total * slope).sum(dim=1) / slope.square().sum(dim=1).clamp_min(1e-300)
        aligned = aligned.clamp_min(0.0)
        near = room[:, j] < band * budgets[:, j]
        multiplier = torch.where(near, multiplier.clamp(aligned, 2 * aligned), multiplier)
        total = total - multiplier.unsqueeze(1) * slope
    return total


def _step_inside(problem: Problem, u: Tensor, step: Tensor, region: Region) -> Tensor:
    """Take the step, halved for each row until it is strictly feasible; else stay."""
    pending = torch.arange(len(u))
    result, scale = u.clone(), 1.0
    for _ in range(HALVINGS):
        trial = (u[pending] + scale * step[pending]).clamp(region.low, region.high)
        fits = (problem.cost(trial) < region.budgets[pending]).all(dim=1)
        result[pending[fits]] = trial[fits]
        pending, scale = pending[~fits], scale / 2
        if len(pending) == 0:
            break
    return result
