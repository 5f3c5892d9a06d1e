"""Small networks that real ones are made of, and the torchvision networks traced once."""

import functools
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn

from seernet.graph import NetworkGraph
from seernet.models import trace

SHAPE = (3, 32, 32)
Traced = tuple[nn.Module, NetworkGraph]


@pytest.fixture(scope="session")
def torchvision_traced() -> Callable[[str], Traced]:
    """Build and trace a torchvision network for 32 x 32 images and ten classes."""

    @functools.cache
    def traced(name: str) -> Traced:
        model = torchvision.models.get_model(name, weights=None, num_classes=10).eval()
        return model, trace(model, SHAPE)

    return traced


@pytest.fixture
def around() -> Callable[[nn.Module], nn.Module]:
    """Put a module of 8 channels between two convolutions and a classifier."""

    def build(middle: nn.Module, out: int = 8) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)  # one draw in 64 leaves nothing alive behind the activation
            return nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1),
                middle,
                nn.Conv2d(out, 6, 3, padding=1),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(6, 10),
            )

    return build
