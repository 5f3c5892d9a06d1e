"""A wrong key or value is named, with the nearest valid key or the rule it breaks."""

from pathlib import Path

import pytest

from seernet.config import load, validate
from seernet.errors import ConfigError

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "params.yaml", *sorted((ROOT / "presets").glob("*.yaml"))]


def refusal(load_text, content):
    with pytest.raises(ConfigError) as caught:
        load_text(content)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_own_parameters_and_presets_are_valid(path):
    assert load(path).budgets


@pytest.mark.parametrize(
    ("right", "wrong", "unknown", "suggested"),
    [
        ("seed: 0", "sed: 0", "sed", "seed"),
        ("    steps: 100", "    stepz: 100", "sample.evaluation.stepz", "sample.evaluation.steps"),
        ("bops_ratio: 0.02", "bops_rati: 0.02", "budgets.large.bops_rati", "bops_ratio"),
        ("  kappa: 0.5", "  Kappa: 0.5", "optimize.Kappa", "optimize.kappa"),
        ("seed: 0", "seed: 0\nfolds: 3", "folds", "predictor.folds"),
    ],
)
def test_unknown_key_is_named_with_the_nearest(
    load_text, params_text, right, wrong, unknown, suggested
):
    assert right in params_text
    message = refusal(load_text, params_text.replace(right, wrong))
    assert f"unknown key `{unknown}`; did you mean `" in message
    assert f"{suggested}`?" in message


def test_missing_key_is_named(load_text, params_text):
    assert "missing key `seed`" in refusal(load_text, params_text.replace("seed: 0\n", ""))
    assert "missing key `sample.cost_range`" in refusal(
        load_text, params_text.replace("  cost_range:\n    - 0.003\n    - 0.03\n", "")
    )


@pytest.mark.parametrize("value", ["null", "3", "[1]", "text", "true"])
def test_section_must_hold_keys(load_text, params_text, value):
    text = params_text.replace("report:\n  front_points: 100\n  dpi: 160\n", f"report: {value}\n")
    assert "`report`: must be a section" in refusal(load_text, text)


def test_budgets_must_hold_one(load_text, params_text):
    start, end = params_text.index("budgets:"), params_text.index("finetune:")
    for value in ("{}", "null", "[]"):
        text = f"{params_text[:start]}budgets: {value}\n{params_text[end:]}"
        message = refusal(load_text, text)
        assert "`budgets`: " in message and "Dictionary" not in message


@pytest.mark.parametrize(
    ("right", "wrong", "key"),
    [
        ("seed: 0", "seed: '0'", "seed"),
        ("seed: 0", "seed: true", "seed"),
        ("seed: 0", "seed: 0.0", "seed"),
        ("seed: 0", "seed: -1", "seed"),
        ("kappa: 0.5", "kappa: '0.5'", "optimize.kappa"),
        ("kappa: 0.5", "kappa: yes", "optimize.kappa"),
        ("kappa: 0.5", "kappa: true", "optimize.kappa"),
        ("folds: 5", "folds: 1", "predictor.folds"),
        ("name: digits", "name: digitz", "data.name"),
        ("name: digits", "name: digits\n  flip: 1", "data.flip"),
        ("name: digits", "name: digits\n  channels: true", "data.channels"),
        ("name: digits", "name: digits\n  channels: 2", "data.channels"),
        ("name: digits", "name: digits\n  path: 3", "data.path"),
        ("name: digits", "name: digits\n  image_size: 0", "data.image_size"),
        ("name: digits", "name: digits\n  image_size: 4097", "data.image_size"),
        ("edge_bits: 8", "edge_bits: 9", "space.edge_bits"),
        ("    - 0.003\n    - 0.03\n", "    - 0.03\n    - 0.003\n", "sample.cost_range"),
        ("    - 0.003\n", "", "sample.cost_range"),
        ("    - 2\n    - 3\n", "    - 3\n    - 2\n", "space.weight_bits"),
        ("    - 2\n    - 3\n", "    - 2\n    - x\n", "space.weight_bits.1"),
        ("  seeds:\n    - 0", "  seeds:\n    - 0\n    - 0", "finetune.seeds"),
        ("  small:", "  Small-1:", "budgets"),
        ("  small:", f"  {'a' * 65}:", "budgets"),
        ("  small:\n    bops_ratio: 0.005", "  small: {}", "budgets.small"),
        ("  small:\n    bops_ratio: 0.005", "  small: {bops: 0}", "budgets.small.bops"),
    ],
)
def test_wrong_value_is_named(load_text, params_text, right, wrong, key):
    assert right in params_text
    assert f"`{key}`: " in refusal(load_text, params_text.replace(right, wrong))


def test_integer_is_accepted_where_a_real_is_expected(load_text, params_text):
    kappa = load_text(params_text.replace("kappa: 0.5", "kappa: 1")).optimize.kappa
    assert kappa == 1.0
    assert isinstance(kappa, float)


def test_message_gives_value_and_meaning_of_the_key(load_text, params_text):
    message = refusal(load_text, params_text.replace("    steps: 100", "    steps: -5"))
    assert "greater than or equal to 0, got -5 (optimizer steps of finetuning)" in message


def test_long_list_of_errors_is_cut():
    with pytest.raises(ConfigError, match="and 5 more"):
        validate({f"key_{index}": float("nan") for index in range(15)})


def test_source_is_named():
    with pytest.raises(ConfigError, match=r"^presets/x\.yaml: "):
        validate({}, "presets/x.yaml")
