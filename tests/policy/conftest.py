"""A graph small enough to cost by hand, and the published ResNet-20."""

import pytest

from seernet.config import ModelConfig
from seernet.graph import ChannelGroup, Layer, NetworkGraph
from seernet.models import build, trace


@pytest.fixture(scope="session")
def hand() -> NetworkGraph:
    """conv 3->8 on 4 x 4, depthwise 8, conv 8->4, linear 4->2; the first 8 channels are one group.

    MACs: 3 * 8 * 16 = 384; 8 * 9 * 16 = 1152; 8 * 4 * 16 = 512; 4 * 2 = 8.
    """
    return NetworkGraph(
        input_shape=(3, 4, 4),
        layers=(
            Layer("first", "conv", 384, 24, 3, 8, {}, {"first": 8}, False, True, True),
            Layer("deep", "conv", 1152, 72, 8, 8, {"first": 8}, {"first": 8}, True, True, False),
            Layer("point", "conv", 512, 32, 8, 4, {"first": 8}, {"point": 4}, False, True, False),
            Layer("last", "linear", 8, 8, 4, 2, {"point": 4}, {}, False, True, True),
        ),
        groups=(ChannelGroup("first", 8, ()), ChannelGroup("point", 4, ())),
        norms=(),
        whole=(),
        kept={},
    )


@pytest.fixture(scope="session")
def resnet() -> NetworkGraph:
    """The published ResNet-20."""
    return trace(build(ModelConfig(name="resnet20"), 10, (3, 32, 32)), (3, 32, 32))
