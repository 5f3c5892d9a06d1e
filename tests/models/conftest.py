"""Small networks that real ones are made of, and the torchvision networks traced once."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from seernet.graph import NetworkGraph

Traced = tuple[nn.Module, NetworkGraph]


@pytest.fixture(scope="session")
def torchvision_traced(traced: Callable[..., Traced]) -> Callable[[str], Traced]:
    """Build and trace a torchvision network for 32 x 32 images and ten classes."""
    return lambda name: traced(f"torchvision:{name}")


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
