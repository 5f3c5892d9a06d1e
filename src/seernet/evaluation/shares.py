"""Data of which each process reads its share; see `together`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from seernet.data import Augment, Batch, Dataset, Loader, Split, Target
from seernet.data.files import FileImages, FileLoader
from seernet.data.scenes import SceneImages, SceneLoader
from seernet.distributed import ALONE, Team


class TeamDataset(Dataset):
    """A data set whose loaders decode image files of a process's own share only.

    Batches are whole all the same: the images of others are empty, their labels and boxes there.

    Args:
        dataset: The data set; what it has read is not read again.
        team: The processes.
    """

    def __init__(self, dataset: Dataset, team: Team) -> None:
        vars(self).update(vars(dataset))
        self.team = team

    def loader(
        self, split: Split, batch_size: int, *, augment: Augment | None = None, seed: int = 0
    ) -> Loader:
        """Return the batches of a split; see `Dataset.loader`."""
        loader = super().loader(split, batch_size, augment=augment, seed=seed)
        if isinstance(loader, FileLoader):
            loader = replace(loader, images=_Files(**vars(loader.images), team=self.team))
        elif isinstance(loader, SceneLoader):
            loader = replace(loader, images=_Scenes(**vars(loader.images), team=self.team))
        return loader if augment is None else _OwnDraws(loader, self.team)


@dataclass(frozen=True)
class _OwnDraws:
    """Batches to train on; in each process dropout draws numbers of its own."""

    loader: Loader
    team: Team

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of an epoch; `fit` has seeded torch's generator for it."""
        if not self.team.leads:
            torch.manual_seed(torch.initial_seed() + self.team.rank)
        return self.loader.epoch(number)


@dataclass(frozen=True)
class _Files(FileImages):
    """Image files of which each process reads its share."""

    team: Team = ALONE

    def read(self, decoder: Any, order: Sequence[int], batch_size: int) -> Iterator[Batch]:
        """See `FileImages.read`."""
        batches, own, size = _shares(order, batch_size, self.team)
        read = super().read(decoder, own, size)
        for batch, (images, _) in zip(batches, read, strict=True):
            labels = torch.tensor([self.rows[i][1] for i in batch], device=self.device)
            yield _whole(images, len(batch), self.team), labels


@dataclass(frozen=True)
class _Scenes(SceneImages):
    """Images with boxes, of which each process reads its share."""

    team: Team = ALONE

    def read(self, order: Sequence[int], batch_size: int) -> Iterator[tuple[Tensor, list[Target]]]:
        """See `SceneImages.read`."""
        batches, own, size = _shares(order, batch_size, self.team)
        for batch, (images, _) in zip(batches, super().read(own, size), strict=True):
            targets = [
                {key: value.to(self.device) for key, value in self.targets[i].items()}
                for i in batch
            ]
            yield _whole(images, len(batch), self.team), targets


def _shares(
    order: Sequence[int], batch_size: int, team: Team
) -> tuple[list[Sequence[int]], list[int], int]:
    """The batches of an order, this process's images of all of them, and how many of each."""
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    own = [batch[i % len(batch)] for batch in batches for i in team.share(len(batch))]
    return batches, own, len(team.share(batch_size))


def _whole(own: Tensor, count: int, team: Team) -> Tensor:
    """A batch of `count` images of which only this process's share is there."""
    images = own.new_zeros((count, *own.shape[1:]))
    images[_positions(count, team, own.device)] = own
    return images


def own_share(images: Tensor, team: Team) -> Tensor:
    """The images of a batch that this process computes; see `Team.share`."""
    return images[_positions(len(images), team, images.device)]


def _positions(count: int, team: Team, device: torch.device) -> Tensor:
    """Where a process's share of `count` images lies; beyond the end it begins again."""
    share = team.share(count)
    return torch.arange(share.start, share.stop, device=device) % count
