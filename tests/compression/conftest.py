"""Small networks with known graphs."""

import pytest
import torch
from torch import Tensor, nn

from seernet.config import ModelConfig
from seernet.graph import NetworkGraph
from seernet.models import build, trace
from seernet.policy import Policy

SHAPE = (3, 16, 16)


@pytest.fixture(scope="session")
def images() -> Tensor:
    return torch.randn(40, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def resnet() -> nn.Module:
    """A narrow ResNet-20 whose batch norms have seen something; not to be changed."""
    model = build(ModelConfig(name="resnet20", arguments={"width": 8}), 10, SHAPE)
    with torch.no_grad():
        model.train()(torch.randn(64, *SHAPE, generator=torch.Generator().manual_seed(1)))
    return model.eval()


@pytest.fixture(scope="session")
def graph(resnet: nn.Module) -> NetworkGraph:
    return trace(resnet, SHAPE)


@pytest.fixture(scope="session")
def policy(graph: NetworkGraph) -> Policy:
    """Half of all channels, middle layers at 4 bits."""
    bits = {x.name: 8 if x.edge else 4 for x in graph.layers}
    return Policy({g.name: 0.5 for g in graph.groups}, bits, bits)
