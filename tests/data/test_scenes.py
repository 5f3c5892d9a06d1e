"""Boxes go where their pixels go, and nothing depends on how images are read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seernet.config import DataConfig
from seernet.data import Augment, Dataset, prepare
from seernet.data.scenes import Draws, distorted, moved

SIZE = (24, 40)  # height, width


def scene(corners: list[float], crowd: bool = False) -> tuple[torch.Tensor, dict]:
    """A black image with one white box, and the box."""
    left, top, right, bottom = (int(value) for value in corners)
    image = torch.zeros(1, *SIZE)
    image[:, top:bottom, left:right] = 1.0
    target = {
        "boxes": torch.tensor([corners]),
        "labels": torch.tensor([3]),
        "crowd": torch.tensor([crowd]),
    }
    return image, target


def draws(scale: tuple[float, float], shift: tuple[float, float] = (0.0, 0.0)) -> Draws:
    """One image seen in a certain way, colors as they are."""
    one = torch.ones(1, 3, 1, 1)
    return Draws(torch.tensor([scale]), torch.tensor([shift]), one, torch.zeros(1, 1, 1, 1))


def extent(image: torch.Tensor) -> list[float]:
    """Where an image is rather white: left, top, right, bottom."""
    rows, columns = (image[0] > 0.75).nonzero(as_tuple=True)
    return [
        float(columns.min()),
        float(rows.min()),
        float(columns.max()) + 1,
        float(rows.max()) + 1,
    ]


@pytest.mark.parametrize(
    ("scale", "shift", "expected"),
    [
        ((1.0, 1.0), (0.0, 0.0), [10.0, 6.0, 22.0, 18.0]),
        ((-1.0, 1.0), (0.0, 0.0), [18.0, 6.0, 30.0, 18.0]),  # mirrored: 40 - 22, 40 - 10
        ((2.0, 2.0), (0.0, 0.0), [15.0, 9.0, 21.0, 15.0]),  # half as large, towards the centre
        ((0.5, 0.5), (-0.1, 0.0), [4.0, 0.0, 28.0, 24.0]),  # twice as large
    ],
)
def test_box_goes_where_its_pixels_go(scale, shift, expected):
    image, target = scene([10.0, 6.0, 22.0, 18.0])
    drawn = draws(scale, shift)
    (found,) = moved([target], drawn, SIZE)
    assert found["boxes"].tolist() == [pytest.approx(expected, abs=1e-4)]
    assert found["labels"].tolist() == [3]
    seen = extent(distorted(image[None], drawn)[0])
    assert seen == pytest.approx(expected, abs=1.01)


def test_box_that_is_mostly_cut_off_or_a_crowd_is_not_learned():
    _, inside = scene([10.0, 6.0, 22.0, 18.0])
    _, crowd = scene([10.0, 6.0, 22.0, 18.0], crowd=True)
    zoomed = draws((0.5, 0.5), (0.5, 0.5))  # the lower right quarter
    (found,) = moved([inside], zoomed, SIZE)
    assert len(found["labels"]) == 0
    (found,) = moved([crowd], draws((1.0, 1.0)), SIZE)
    assert len(found["labels"]) == 0


def test_draws_differ_between_images_and_stay_within_bounds():
    drawn = Draws.of(2000, True, torch.Generator().manual_seed(0))
    across, down = drawn.scale.abs().T
    assert 0.4 < float((drawn.scale[:, 0] < 0).float().mean()) < 0.6
    assert float((across * down).sqrt().max()) <= 2.0 + 1e-5
    assert float((across * down).sqrt().min()) >= 0.5 - 1e-5
    # Zoomed in, nothing beyond the image is seen; zoomed out, all of it is.
    reach = drawn.shift.abs() - (1.0 - drawn.scale).abs()
    straight = drawn.scale[:, 0] > 0
    assert float(reach[straight].max()) <= 1e-6
    assert not bool((Draws.of(100, False, torch.Generator()).scale < 0).any())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes") / "prepared"
    config = DataConfig(name="digit-scenes", image_size=48, search_fraction=0.1)
    return prepare(config, 0, folder, 16, progress=False), folder


def test_digit_scenes_are_prepared_alike_every_time(prepared, tmp_path):
    info, folder = prepared
    assert (info.task, info.input_shape) == ("detection", (3, 48, 48))
    assert info.classes == tuple("0123456789")
    assert (info.mean, info.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert info.counts["test"] == 300
    config = DataConfig(name="digit-scenes", image_size=48, search_fraction=0.1)
    prepare(config, 0, tmp_path / "again", 16, progress=False)
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_loaders_give_boxes_inside_of_images(prepared):
    _, folder = prepared
    dataset = Dataset.open(folder, torch.device("cpu"), workers=0)
    plain = dataset.loader("test", 64)
    assert len(plain) == 5
    counts = []
    for images, targets in plain.epoch(0):
        assert images.min() >= 0.0
        assert images.max() <= 1.0
        assert len(targets) == len(images)
        for target in targets:
            counts.append(len(target["labels"]))
            assert bool((target["boxes"][:, 2:] > target["boxes"][:, :2]).all())
            assert float(target["boxes"].max()) <= 48.0
    assert 1 <= min(counts) <= max(counts) <= 4
    first = dataset.loader("train", 32, augment=Augment(0, False), seed=1)
    once, again = ([t for _, ts in first.epoch(2) for t in ts] for _ in range(2))
    other = [t for _, ts in first.epoch(3) for t in ts]
    assert len(once) == len(first) * 32
    assert all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(once, again, strict=True))
    assert not all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(once, other, strict=True))


def test_calibration_images_are_in_unit_range(prepared):
    _, folder = prepared
    images = Dataset.open(folder, torch.device("cpu"), 0).subset("train", 20, 0)
    assert images.shape == (20, 3, 48, 48)
    assert 0.0 <= float(images.min()) < float(images.max()) <= 1.0


def test_pixels_lie_where_the_boxes_are(prepared):
    """A digit stands out from its ground: its box varies more than the scene on the whole."""
    _, folder = prepared
    images, targets = next(
        iter(Dataset.open(folder, torch.device("cpu"), 0).loader("test", 40).epoch(0))
    )
    wins = []
    for image, target in zip(images, targets, strict=True):
        for left, top, right, bottom in target["boxes"].int().tolist():
            box = image[:, top:bottom, left:right]
            wins.append(float(box.std(dim=(1, 2)).mean()) > float(image.std(dim=(1, 2)).median()))
    assert np.mean(wins) > 0.7
