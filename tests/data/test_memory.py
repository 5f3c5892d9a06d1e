"""Loaders over decoded images: seeding, augmentation against a slow reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seernet.data import Augment
from seernet.data.loader import Normalizer
from seernet.data.memory import DecodedImages, DecodedLoader, shift


def _images(count: int, channels: int = 3, size: tuple[int, int] = (4, 4)) -> DecodedImages:
    """Images without a repeated pixel; labels are their positions."""
    pixels = torch.randint(
        0, 256, (count, channels, *size), generator=torch.Generator().manual_seed(0)
    ).to(torch.uint8)
    mean = torch.full((1, channels, 1, 1), 100.0)
    std = torch.full((1, channels, 1, 1), 50.0)
    return DecodedImages(pixels, torch.arange(count), Normalizer(mean, std))


def _labels(loader: DecodedLoader, epoch: int) -> list[int]:
    return torch.cat([labels for _, labels in loader.epoch(epoch)]).tolist()


def _all(loader: DecodedLoader, epoch: int) -> Tensor:
    return torch.cat([images for images, _ in loader.epoch(epoch)])


def test_pixels_are_normalised() -> None:
    images = DecodedImages(
        torch.tensor([[[[0, 255]]]], dtype=torch.uint8),
        torch.tensor([0]),
        Normalizer(torch.tensor(51.0), torch.tensor(102.0)),
    )
    ((batch, _),) = images.loader(1, None, 0).epoch(0)
    assert batch.flatten().tolist() == [-0.5, 2.0]


def test_training_epoch_is_a_permutation_without_the_rest() -> None:
    loader = DecodedLoader(_images(10), 4, Augment(), seed=0)
    labels = _labels(loader, 0)
    assert len(loader) == 2
    assert len(labels) == len(set(labels)) == 8
    assert labels != sorted(labels)


def test_training_split_smaller_than_a_batch_gives_one_batch() -> None:
    loader = DecodedLoader(_images(3), 8, Augment(), seed=0)
    assert len(loader) == 1
    assert sorted(_labels(loader, 0)) == [0, 1, 2]


def test_epoch_does_not_depend_on_earlier_epochs() -> None:
    augment = Augment(crop_padding=2, flip=True)
    fresh = DecodedLoader(_images(16), 4, augment, seed=5)
    used = DecodedLoader(_images(16), 4, augment, seed=5)
    for epoch in range(3):
        _all(used, epoch)
    assert torch.equal(_all(fresh, 3), _all(used, 3))
    assert _labels(fresh, 3) == _labels(used, 3)


def test_epochs_and_seeds_differ() -> None:
    loader = DecodedLoader(_images(32), 8, Augment(), seed=0)
    assert _labels(loader, 0) != _labels(loader, 1)
    assert _labels(loader, 0) != _labels(DecodedLoader(_images(32), 8, Augment(), seed=1), 0)


def test_training_without_augmentation_changes_no_pixel() -> None:
    images = _images(8)
    plain = _all(images.loader(8, None, 0), 0)
    loader = DecodedLoader(images, 8, Augment(), seed=0)
    assert torch.equal(_all(loader, 0), plain[_labels(loader, 0)])


def test_flip_mirrors_about_half_and_nothing_else() -> None:
    images = _images(400)
    plain = _all(images.loader(400, None, 0), 0)
    loader = DecodedLoader(images, 400, Augment(flip=True), seed=0)
    batch, plain = _all(loader, 0), plain[_labels(loader, 0)]
    same = (batch == plain).flatten(1).all(1)
    mirrored = (batch == plain.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 150 < int(mirrored.sum()) < 250  # binomial(400, 1/2): 5 standard deviations


@pytest.mark.parametrize("channels", [1, 3])
def test_shift_equals_padding_and_slicing_each_image(channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(20, channels, 5, 7, generator=generator)
    shifts = torch.randint(0, 5, (2, 20), generator=generator)
    padded = torch.zeros(20, channels, 9, 11)
    padded[:, :, 2:7, 2:9] = images
    expected = torch.stack(
        [padded[i, :, r : r + 5, c : c + 7] for i, (r, c) in enumerate(shifts.T.tolist())]
    )
    assert torch.equal(shift(images, shifts, 2), expected)


def test_crop_reaches_every_corner_and_pads_with_the_mean() -> None:
    images = _images(500, channels=1, size=(3, 3))
    batch = _all(DecodedLoader(images, 500, Augment(crop_padding=1), seed=0), 0)
    for corner in ((0, 0), (0, 2), (2, 0), (2, 2)):
        assert (batch[:, 0, corner[0], corner[1]] == 0).any()
    # Of 9 shifts a third each moves the top row away.
    assert 0.2 < float((batch[:, 0, 0] == 0).all(1).float().mean()) < 0.47


@pytest.mark.parametrize("augment", [None, Augment(), Augment(1, True)])
def test_color_batches_are_contiguous(augment: Augment | None) -> None:
    ((batch, _),) = _images(8).loader(8, augment, 0).epoch(0)
    assert batch.is_contiguous()
    ((gray, _),) = _images(8, channels=1).loader(8, augment, 0).epoch(0)
    assert gray.stride() == (16, 16, 4, 1)
