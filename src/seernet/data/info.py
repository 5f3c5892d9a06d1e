"""What a prepared data set is: the contents of `dataset.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from seernet.errors import ArtifactError

VERSION = 1
FILE = "dataset.json"

Split: TypeAlias = Literal["train", "search", "test"]
SPLITS: tuple[Split, ...] = ("train", "search", "test")
"""Trained on; scores policies; read once, at the end."""


@dataclass(frozen=True)
class DatasetInfo:
    """A prepared data set, without its images.

    Attributes:
        task: What is learned from it.
        name: `data.name` of the parameters.
        classes: Names; a label is an index into them.
        channels: 1 (gray) or 3 (RGB).
        image_size: Height and width that the network sees, in pixels.
        mean: Of the train split, for each channel; pixels in [0, 1]; or `data.mean`. Detectors
            normalise images themselves: 0.
        std: The same for the standard deviation; positive. For detectors 1.
        storage: `memory` (decoded, `<split>.safetensors`) or `files` (`<split>.csv` of paths).
        root: Folder that the paths of `files` start from, as `data.path` gives it; else None.
        counts: Images in each split.
        fingerprint: SHA-256 of everything that training sees: contents, labels, splits, geometry.
        warnings: Oddities that were handled, to show the user.
    """

    task: Literal["classification", "detection"]
    name: str
    classes: tuple[str, ...]
    channels: int
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    storage: Literal["memory", "files"]
    root: str | None
    counts: Mapping[str, int]
    fingerprint: str
    warnings: tuple[str, ...]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        return (self.channels, *self.image_size)

    def save(self, folder: Path) -> None:
        """Write `dataset.json` into a folder."""
        document = {"version": VERSION, **asdict(self)}
        text = json.dumps(document, indent=1, ensure_ascii=False)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> DatasetInfo:
        """Read what `save` wrote.

        Raises:
            ArtifactError: If the file is missing, damaged, or of another version.
        """
        path = Path(folder) / FILE
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            version = document.pop("version")
            if version != VERSION:
                raise ArtifactError(
                    f"{path} has version {version}, not {VERSION}; run the prepare stage again."
                )
            return _parse(document)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"cannot read the prepared data set {path} ({error!r}); run the prepare stage."
            ) from error


def _parse(document: dict[str, Any]) -> DatasetInfo:
    if document["task"] not in ("classification", "detection"):
        raise ValueError(f"unknown task {document['task']!r}")
    height, width = document["image_size"]
    info = DatasetInfo(
        **{
            **document,
            "classes": tuple(document["classes"]),
            "image_size": (int(height), int(width)),
            "mean": tuple(float(value) for value in document["mean"]),
            "std": tuple(float(value) for value in document["std"]),
            "warnings": tuple(document["warnings"]),
        }
    )
    if set(info.counts) != set(SPLITS) or {len(info.mean), len(info.std)} != {info.channels}:
        raise ValueError("counts or statistics are incomplete")
    return info
