"""Image trees made on the spot, and short ways to prepare and open them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seernet.config import DataConfig
from seernet.data import Dataset, DatasetInfo, prepare

MakeTree = Callable[..., Path]
Prepare = Callable[..., DatasetInfo]


@pytest.fixture
def make_tree(tmp_path: Path) -> MakeTree:
    """Write noise images: `make_tree({"train/cat": 3})`; every image differs from all others."""

    def make(counts: dict[str, int], size: tuple[int, int] = (8, 8), suffix: str = "png") -> Path:
        root = tmp_path / "tree"
        noise = np.random.default_rng(0)
        for folder, count in counts.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = noise.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / folder / f"{number:03d}.{suffix}")
        return root

    return make


@pytest.fixture
def prepare_in(tmp_path: Path) -> Prepare:
    """Prepare into `tmp_path/prepared` with a batch of 2, quietly."""

    def run(seed: int = 0, batch_size: int = 2, output: str = "prepared", **config) -> DatasetInfo:
        settings = DataConfig(**{"name": "imagefolder", **config})
        return prepare(settings, seed, tmp_path / output, batch_size, progress=False)

    return run


@pytest.fixture
def open_prepared(tmp_path: Path) -> Callable[..., Dataset]:
    """Open `tmp_path/prepared` on the CPU."""

    def run(workers: int = 0, output: str = "prepared") -> Dataset:
        return Dataset.open(tmp_path / output, torch.device("cpu"), workers)

    return run
