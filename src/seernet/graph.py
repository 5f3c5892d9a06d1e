"""What later stages know of a network without loading it: layers, MACs, coupled channels.

`pretrain` writes this graph once, as `models/baseline/graph.json`. It does not depend on the search
space, so budgets, bit-widths and pruning grids can change without tracing again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from seernet.errors import ArtifactError

VERSION = 3


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer that policies can prune and quantize.

    Attributes:
        name: Qualified module name.
        kind: `conv` or `linear`.
        macs: Multiply-accumulates for one image at full width.
        weights: Weight elements at full width.
        in_features: Input channels (features) at full width.
        out_features: Output channels (features) at full width.
        inputs: For each channel group that feeds the layer, how many of its input features are of
            that group; features named by none never go.
        outputs: The same for the output; at most one group in practice.
        depthwise: Whether each input channel meets one output channel only.
        bias: Whether it stores one bias an output channel: its own, or of a batch norm that folds
            into it.
        edge: Whether it is the first or the last layer.
    """

    name: str
    kind: Literal["conv", "linear"]
    macs: int
    weights: int
    in_features: int
    out_features: int
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    depthwise: bool
    bias: bool
    edge: bool


@dataclass(frozen=True)
class Run:
    """Consecutive features of one module that belong to consecutive channels of a group.

    Feature `start + i` is channel `channel + i // repeat`, for i in 0 .. length * repeat - 1.
    """

    start: int
    length: int
    channel: int
    repeat: int


@dataclass(frozen=True)
class Member:
    """Where a channel group appears in one module: on its input or on its output side."""

    module: str
    side: Literal["in", "out"]
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that are removed together, named after the first layer that produces them."""

    name: str
    channels: int
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Norm:
    """A normalisation or PReLU that folds into no layer.

    Attributes:
        name: Qualified module name.
        features: Features at full width.
        inputs: For each channel group, how many of the features are of that group.
        floats: float32 values a feature: 2 (scale and shift), 1 for a PReLU.
    """

    name: str
    features: int
    inputs: Mapping[str, int]
    floats: int = 2


@dataclass(frozen=True)
class Whole:
    """A part that stays as it is, at 32 bits, and is counted so (attention, custom operations)."""

    name: str
    macs: int
    parameters: int
    reason: str


@dataclass(frozen=True)
class NetworkGraph:
    """A traced network; see the module's docstring.

    Attributes:
        input_shape: Channels, height and width of one image.
        layers: In order of execution.
        groups: Prunable channel groups.
        norms: Normalisations and PReLUs that are not folded.
        whole: Parts that stay whole.
        kept: Channel groups that cannot be pruned, with the reason, to tell the user.
        maps: Feature maps between layers that are stored in 8 bits; see `models.maps`.
    """

    input_shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    groups: tuple[ChannelGroup, ...]
    norms: tuple[Norm, ...]
    whole: tuple[Whole, ...]
    kept: Mapping[str, str]
    maps: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> NetworkGraph:
        """Read what `to_dict` gave.

        Raises:
            ValueError: If it is of another version.
            LookupError, TypeError, AttributeError: If a part is missing or of a wrong type.
        """
        if document["version"] != VERSION:
            raise ValueError(f"version {document['version']}, not {VERSION}")
        return _parse({key: value for key, value in document.items() if key != "version"})

    def save(self, path: Path) -> None:
        """Write as JSON."""
        document = self.to_dict()
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> NetworkGraph:
        """Read what `save` wrote.

        Raises:
            ArtifactError: If the file is missing, damaged, or of another version.
        """
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"cannot read the network graph {path} ({error!r}); run the pretrain stage again."
            ) from error


def _parse(document: dict[str, Any]) -> NetworkGraph:
    groups = tuple(
        ChannelGroup(
            name=group["name"],
            channels=group["channels"],
            members=tuple(
                Member(m["module"], m["side"], tuple(Run(**run) for run in m["runs"]))
                for m in group["members"]
            ),
        )
        for group in document["groups"]
    )
    return NetworkGraph(
        input_shape=tuple(document["input_shape"]),
        layers=tuple(Layer(**layer) for layer in document["layers"]),
        groups=groups,
        norms=tuple(Norm(**norm) for norm in document["norms"]),
        whole=tuple(Whole(**whole) for whole in document["whole"]),
        kept=document["kept"],
        maps=document["maps"],
    )
