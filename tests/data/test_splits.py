"""Held-out splits: disjoint, stratified, seeded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seernet.data.splits import hold_out, shortages

BOTH = {"test": 0.25, "search": 0.2}


def _train(count: int) -> np.ndarray:
    return np.full(count, "train", dtype="<U6")


def test_each_class_gives_its_share() -> None:
    labels = np.repeat([0, 1], [40, 20])
    splits = hold_out(labels, _train(60), BOTH, seed=0)
    counts = [
        [int(np.sum((labels == label) & (splits == name))) for name in ("train", "search", "test")]
        for label in (0, 1)
    ]
    assert counts == [[24, 6, 10], [12, 3, 5]]  # 40: a quarter is 10, a fifth of 30 is 6


@given(
    counts=st.lists(st.integers(3, 30), min_size=2, max_size=5),
    test=st.floats(0.001, 0.999),
    search=st.floats(0.001, 0.999),
)
def test_every_class_is_in_every_split(counts: list[int], test: float, search: float) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    splits = hold_out(labels, _train(len(labels)), {"test": test, "search": search}, seed=1)
    for name in ("train", "search", "test"):
        assert set(labels[splits == name]) == set(range(len(counts)))


def test_given_splits_are_kept() -> None:
    labels = np.tile([0, 1], 10)
    source = np.repeat(["train", "test"], [12, 8])
    splits = hold_out(labels, source, BOTH, seed=0)
    assert (splits[12:] == "test").all()
    assert set(splits[:12]) == {"train", "search"}


def test_seed_decides_the_split() -> None:
    labels = np.repeat([0, 1], 50)
    first, again, other = (hold_out(labels, _train(100), BOTH, seed) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize(("missing", "short"), [(["test", "search"], True), (["search"], False)])
def test_class_needs_one_image_a_split(missing: list[str], short: bool) -> None:
    labels = np.array([0, 0, 0, 1, 1])
    complaints = shortages(labels, _train(5), ["cat", "dog"], missing)
    assert bool(complaints) is short
    if short:
        assert "'dog' (2)" in complaints[0]
        assert "cat" not in complaints[0]
        assert "at least 3" in complaints[0]
