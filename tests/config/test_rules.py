"""Rules between keys name every key they involve."""

import pytest

from seernet.errors import ConfigError


@pytest.mark.parametrize(
    ("right", "wrong", "keys"),
    [
        ("name: digits", "name: imagefolder", ["data.name", "data.path"]),
        ("name: digits", "name: digits\n  mean:\n    - 0.5", ["data.mean", "data.std"]),
        (
            "name: resnet20",
            "name: resnet20\n  weights: DEFAULT\n  checkpoint: a.safetensors",
            ["model.weights", "model.checkpoint"],
        ),
        ("pruning_step: 0.125", "pruning_step: 0.8", ["space.pruning_step", "0.8", "0.75"]),
        ("  batch: 8", "  batch: 129", ["sample.batch", "129", "sample.population", "128"]),
        ("name: digits", "name: digit-scenes", ["data.crop_padding", "1", "data.name"]),
        ("name: digits", "name: voc\n  path: a", ["data.crop_padding", "1", "data.name: voc"]),
        ("name: digits", "name: digits\n  classes: [a, b]", ["data.classes", "data.name: digits"]),
        ("initial: 24", "initial: 4", ["sample.evaluations", "sample.initial", "at least 5"]),
        ("folds: 5", "folds: 65", ["predictor.folds", "65", "sample.evaluations", "64"]),
    ],
)
def test_contradiction_names_all_keys(load_text, params_text, right, wrong, keys):
    assert right in params_text
    with pytest.raises(ConfigError) as caught:
        load_text(params_text.replace(right, wrong))
    for key in keys:
        assert key in str(caught.value)


def test_shorter_run_than_the_initial_design_is_allowed(load_text, params_text):
    params = load_text(params_text.replace("evaluations: 64", "evaluations: 10"))
    assert params.sample.evaluations < params.sample.initial


def test_no_pruning_allows_any_step(load_text, params_text):
    text = params_text.replace("max_pruning_ratio: 0.75", "max_pruning_ratio: 0.0")
    assert load_text(text).space.max_pruning_ratio == 0.0
