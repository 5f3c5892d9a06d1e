"""Networks that several folders of tests look at, built and traced once in each process."""

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import nn

    from seernet.graph import NetworkGraph


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """What a test draws without a generator of its own is the same in every run."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def traced() -> Callable[..., "tuple[nn.Module, NetworkGraph]"]:
    """Build and trace a network for 32 x 32 images and ten classes; it is not to be changed."""
    from seernet.config import ModelConfig
    from seernet.models import build, trace

    @functools.cache
    def make(name: str, **arguments: Any) -> "tuple[nn.Module, NetworkGraph]":
        shape = (3, 32, 32)
        model = build(ModelConfig(name=name, arguments=arguments), 10, shape).eval()
        return model, trace(model, shape)

    return make
