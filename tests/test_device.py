"""The `device` parameter becomes a device that is there."""

import pytest
import torch

from seernet.config import Params, load
from seernet.device import has_bfloat16, resolve, resolve_device
from seernet.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "gpu", "expected"),
    [
        ("auto", True, "cuda"),
        ("auto", False, "cpu"),
        ("cpu", True, "cpu"),
        ("cpu", False, "cpu"),
        ("cuda", True, "cuda"),
    ],
)
def test_device_is_resolved(monkeypatch, name, gpu, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert resolve_device(name) == expected


def test_missing_gpu_is_an_error_with_a_remedy(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"torch finds no GPU; set device: auto or cpu"):
        resolve_device("cuda")


def params(precision):
    document = load().model_dump() | {"device": "auto"}
    for section in (document["pretrain"], document["finetune"], document["sample"]["evaluation"]):
        section["precision"] = precision
    return Params.model_validate(document)


def precisions(settled):
    sections = (settled.pretrain, settled.sample.evaluation, settled.finetune)
    return {section.precision for section in sections}


@pytest.mark.parametrize(
    ("asked", "fast", "expected"),
    [
        ("auto", True, "bfloat16"),
        ("auto", False, "float32"),
        ("float32", True, "float32"),
        ("bfloat16", True, "bfloat16"),
        ("bfloat16", False, "bfloat16"),
    ],
)
def test_nothing_is_left_to_the_machine(monkeypatch, caplog, asked, fast, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": fast})
    settled = resolve(params(asked))
    assert precisions(settled) == {expected}
    assert settled.device == "cpu"
    assert ("ten times slower" in caplog.text) == (asked == "bfloat16" and not fast)


def test_torch_that_does_not_tell_means_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not has_bfloat16("cpu")
