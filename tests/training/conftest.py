"""The embedded digits, prepared once, and a small network that learns them in seconds."""

import pytest
import torch
from torch import nn

from seernet.config import DataConfig
from seernet.data import Dataset, prepare
from seernet.training import seeded


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "prepared"
    config = DataConfig(name="digits", search_fraction=0.2, test_fraction=0.2, crop_padding=1)
    prepare(config, 0, folder, 64, progress=False)
    return folder


@pytest.fixture
def dataset(digits):
    return Dataset.open(digits, torch.device("cpu"), workers=0)


@pytest.fixture(scope="session")
def small_network():
    """Build a convolution, a norm, dropout and a linear layer; equal seeds give equal weights."""

    def make(seed=0):
        with seeded(seed):
            return nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1, bias=False),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.AvgPool2d(2),
                nn.Flatten(),
                nn.Dropout(0.1),
                nn.Linear(128, 10),
            )

    return make
