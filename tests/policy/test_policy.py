"""Policies as dictionaries and as rows of a table."""

import csv
from pathlib import Path

import pandas as pd
import pytest

from seernet.errors import PolicyError
from seernet.policy import Policy

POLICY = Policy({"a/b": 0.375, "c": 0.0}, {"x": 4, "y": 8}, {"x": 2, "y": 32})


def test_policy_survives_its_dictionary() -> None:
    assert Policy.from_dict(POLICY.to_dict() | {"score": 1}) == POLICY


def test_row_names_kind_and_place() -> None:
    assert POLICY.to_row()["pruning_ratio/a/b"] == 0.375
    assert POLICY.to_row()["act_bits/x"] == 2
    assert len(POLICY.to_row()) == 6


def test_policy_survives_pandas_csv(tmp_path: Path) -> None:
    pd.DataFrame([POLICY.to_row() | {"round": 3}]).to_csv(tmp_path / "t.csv", index=False)
    row = pd.read_csv(tmp_path / "t.csv").iloc[0].to_dict()
    assert Policy.from_row(row) == POLICY


def test_policy_survives_a_csv_of_strings(tmp_path: Path) -> None:
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, POLICY.to_row())
        writer.writeheader()
        writer.writerow(POLICY.to_row())
    with (tmp_path / "t.csv").open(newline="") as file:
        assert Policy.from_row(next(csv.DictReader(file))) == POLICY


def test_key_does_not_depend_on_order() -> None:
    turned = Policy({"c": 0.0, "a/b": 0.375}, {"y": 8, "x": 4}, {"y": 32, "x": 2})
    assert turned.key() == POLICY.key()
    assert Policy({"c": 0.0, "a/b": 0.375}, {"y": 8, "x": 5}, {"y": 32, "x": 2}).key() != (
        POLICY.key()
    )


@pytest.mark.parametrize("bits", [4.5, float("nan"), float("inf"), "four", None])
def test_bits_that_are_no_whole_number_are_refused(bits: object) -> None:
    with pytest.raises(PolicyError, match="not a policy"):
        Policy.from_dict({"pruning_ratio": {}, "weight_bits": {"x": bits}, "act_bits": {}})


@pytest.mark.parametrize("document", [{}, {"pruning_ratio": 3, "weight_bits": {}, "act_bits": {}}])
def test_missing_or_odd_parts_are_refused(document: dict[str, object]) -> None:
    with pytest.raises(PolicyError, match="not a policy"):
        Policy.from_dict(document)
