"""A compressed network as a folder: `model.safetensors`, bit-packed, and `model.json`.

The tensors are those of `compression.pack`. The document says what network they belong to (its
name and arguments, its policy, its traced graph), for what images and classes, so that `load` needs
neither the pipeline nor the baseline: only, for a network of one's own, the code that defines it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as to_bytes
from torch import nn

from seernet.compression import build_compressed, kept_channels, pack, signs, unpack
from seernet.config import ModelConfig
from seernet.data import DatasetInfo
from seernet.errors import ArtifactError, ModelError, PolicyError
from seernet.graph import NetworkGraph
from seernet.models import build
from seernet.policy import Policy

TENSORS = "model.safetensors"
MODEL = "model.json"
REMEDY = "; its packed file is complete, and `export.onnx: false` leaves this one out."
VERSION = 1
_DAMAGED = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError),
    *(SafetensorError, PolicyError),
)


@dataclass(frozen=True)
class Shipped:
    """What a shipped network is.

    Attributes:
        model: The `model` section it was built by.
        policy: How it was compressed.
        graph: The uncompressed network's graph.
        task: `classification` or `detection`.
        classes: Their names.
        mean: Of each channel, by which images in [0, 1] are normalised.
        std: The same for the standard deviation.
    """

    model: ModelConfig
    policy: Policy
    graph: NetworkGraph
    task: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(
        cls, model: ModelConfig, policy: Policy, graph: NetworkGraph, info: DatasetInfo
    ) -> Shipped:
        """Of a network that was trained on a data set."""
        bare = model.model_copy(update={"weights": None, "checkpoint": None})
        return cls(bare, policy, graph, info.task, info.classes, info.mean, info.std)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "version": VERSION,
            "model": self.model.model_dump(include={"name", "arguments"}),
            "policy": self.policy.to_dict(),
            "graph": self.graph.to_dict(),
            "task": self.task,
            "classes": list(self.classes),
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Shipped:
        """Read what `to_dict` gave.

        Raises:
            KeyError: If a part is missing.
            ValueError: If it is of another version.
        """
        if document["version"] != VERSION:
            raise ValueError(f"version {document['version']}, not {VERSION}")
        return cls(
            ModelConfig.model_validate(document["model"]),
            Policy.from_dict(document["policy"]),
            NetworkGraph.from_dict(document["graph"]),
            document["task"],
            *(tuple(document[key]) for key in ("classes", "mean", "std")),
        )


def save(folder: Path, network: nn.Module, shipped: Shipped) -> None:
    """Write a compressed, trained network.

    Args:
        folder: Made if absent.
        network: The network; left as it is.
        shipped: What it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = to_bytes(pack(network, shipped.graph.input_shape))
    # Not by safetensors' own writer, whose files none but their owner may read.
    (folder / TENSORS).write_bytes(tensors)
    digest = hashlib.sha256(tensors).hexdigest()
    document = {**shipped.to_dict(), "signed": signs(network), "sha256": digest}
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    (folder / MODEL).write_text(text + "\n", encoding="utf-8")


def load(folder: str | Path, *, trust_code: bool = False) -> nn.Module:
    """Read what `save` wrote.

    Args:
        folder: The folder.
        trust_code: Whether a function that the folder names may be run, which a network that is
            neither ours nor torchvision's is built by: that of the working folder, or importable.

    Returns:
        The network, in eval mode, on the CPU. Its attribute `shipped` says what it is: images,
        `n x c x h x w`, are to be normalised by `shipped.mean` and `shipped.std`.

    Raises:
        ArtifactError: If a file is missing or damaged.
        ModelError: If a network of one's own is not to be built, or cannot be.
    """
    folder = Path(folder)
    try:
        document = json.loads((folder / MODEL).read_text(encoding="utf-8"))
        shipped = Shipped.from_dict(document)
        signed = {str(name): bool(flag) for name, flag in document["signed"].items()}
        content = (folder / TENSORS).read_bytes()
        # Folders of before this was written go without.
        if document.get("sha256", digest := hashlib.sha256(content).hexdigest()) != digest:
            raise ValueError(f"{TENSORS} is not what was written")
        tensors = read_tensors(content)
    except _DAMAGED as error:
        raise ArtifactError(
            f"{folder} does not hold a packed network ({error!r:.200}); it needs {MODEL} and "
            f"{TENSORS} as they were written."
        ) from error
    name = shipped.model.name
    if ":" in name and not name.startswith("torchvision:") and not trust_code:
        raise ModelError(
            f"{folder} holds a network that the function {name!r} builds; if you trust that code, "
            "and it is in the working folder or installed, say `load(folder, trust_code=True)`."
        )
    shape = shipped.graph.input_shape
    with torch.random.fork_rng(devices=[]):
        model = build(
            shipped.model, len(shipped.classes), shape, shipped.task, overwritten=True
        ).eval()
    keep = kept_channels(model, shipped.policy, shipped.graph)
    skeleton = build_compressed(model, shipped.policy, shipped.graph, keep)
    network = unpack(skeleton, tensors, signed, shape)
    network.shipped = shipped  # type: ignore[assignment]
    return network
