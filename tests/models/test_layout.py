"""Layout changes speed, never what a network computes, and never where it would crash."""

import pytest
import torch
from torch import nn

from seernet.models import lay_out

SHAPE = (3, 8, 8)


class Viewing(nn.Module):
    """Flattens by `view`, as many networks do."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3)

    def forward(self, x):
        return self.conv(x).view(len(x), -1)


def laid_out(model):
    lay_out(model, SHAPE)
    weight = next(p for p in model.parameters() if p.dim() == 4)
    return weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


def test_full_blocks_of_channels_come_last():
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 1, 2)).train()
    images = torch.rand(2, *SHAPE)
    before = model(images)
    assert laid_out(model)
    assert model.training
    torch.testing.assert_close(model(images), before)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(3, 12, 3)],
        [nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 1)],
        [nn.Conv2d(3, 16, 1, 2)],
        [nn.Conv2d(3, 12, 3), nn.Conv2d(12, 12, 3, groups=12), nn.Conv2d(12, 20, 1, 2)],
    ],
)
def test_partial_blocks_stay_on_a_cpu(layers):
    assert not laid_out(nn.Sequential(*layers))


def test_depthwise_convolutions_come_last_at_any_width():
    depthwise = nn.Conv2d(12, 12, 5, 2, padding=2, groups=12)
    model = nn.Sequential(nn.Conv2d(3, 12, 3), depthwise, nn.Conv2d(12, 20, 1))
    images = torch.rand(2, *SHAPE)
    before = model(images)
    assert laid_out(model)
    torch.testing.assert_close(model(images), before)


def test_mixed_layouts_become_the_usual_one():
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 12, 1, 2))
    model[0].to(memory_format=torch.channels_last)
    assert not laid_out(model)
    assert all(parameter.is_contiguous() for parameter in model.parameters())


def test_network_that_views_stays():
    assert not laid_out(Viewing())


def test_network_without_convolutions_stays():
    lay_out(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), SHAPE)
