"""The baseline's folder (`model.safetensors`, `graph.json`), and what a training depends on."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from seernet.config import DataConfig, ModelConfig
from seernet.data import DatasetInfo
from seernet.errors import ArtifactError, ModelError
from seernet.graph import NetworkGraph
from seernet.models import build, definition, read_state


def save_baseline(folder: Path, model: nn.Module, graph: NetworkGraph) -> None:
    """Write the baseline network and its graph."""
    folder.mkdir(parents=True, exist_ok=True)
    # Copies: safetensors refuses tensors that share memory, as tied weights do.
    state = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    graph.save(folder / "graph.json")


def load_baseline(folder: Path, config: ModelConfig, info: DatasetInfo) -> nn.Module:
    """Read the baseline network, in eval mode, on the CPU.

    Raises:
        ArtifactError: If the file is missing, damaged, or of another network.
    """
    bare = config.model_copy(update={"checkpoint": None, "weights": None})
    model = build(bare, len(info.classes), info.input_shape, info.task, overwritten=True)
    try:
        model.load_state_dict(read_state(folder / "model.safetensors"))
    except (ModelError, RuntimeError) as error:
        raise ArtifactError(
            f"{folder / 'model.safetensors'} does not hold the network of the parameters "
            f"({' '.join(str(error).split())[:200]}); run the pretrain stage again."
        ) from error
    return model.eval()


def inputs(prepared: Path, data: DataConfig, model: ModelConfig, device: str) -> dict[str, Any]:
    """What decides every training's result, beside its schedule, its seed and our code.

    Returns:
        A JSON-like value, for `digest`: the images by their fingerprint, how they are normalised
        and augmented, the network's definition, the device, and the versions of the libraries.

    Raises:
        ArtifactError: If the prepared data are missing or damaged.
        ModelError: If a file that defines the network cannot be found.
    """
    info = DatasetInfo.load(prepared)
    return {
        "data": info.fingerprint,
        "normalisation": [info.mean, info.std],
        "augment": data.model_dump(include={"crop_padding", "flip"}),
        "model": model.model_dump(include={"name", "arguments"}),
        "definition": _definition(model.name),
        "device": device,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "libraries": {name: version(name) for name in _libraries(info)},
    }


def _libraries(info: DatasetInfo) -> tuple[str, ...]:
    """Further packages that decide what is seen, or how it is scored."""
    reads = ("pillow",) if info.storage == "files" else ()
    scores = ("torchmetrics", "pycocotools") if info.task == "detection" else ()
    return reads + scores


def _definition(name: str) -> str:
    """Hash of the files that may define a network of the user's; empty for others.

    Its layers and weights are in the baseline's folder, its forward pass is not.
    """
    total = hashlib.sha256()
    files = definition(name)
    for path in files:
        total.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest() if files else ""
