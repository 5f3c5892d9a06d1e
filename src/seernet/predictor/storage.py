"""A predictor in files: `predictor.json` (what it is) and `predictor.safetensors` (its numbers)."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

from torch import Tensor

from seernet.errors import ArtifactError
from seernet.predictor.fitting import FAMILIES, FittedPredictor
from seernet.predictor.interface import Predictor, single_thread
from seernet.predictor.scaling import Scaling

VERSION = 5
HEADER, NUMBERS = "predictor.json", "predictor.safetensors"


def save(predictor: Predictor, folder: Path) -> None:
    """Write a predictor into a folder, which is created; equal predictors give equal bytes.

    Raises:
        ArtifactError: If the predictor did not come from `fit` or `load`.
    """
    from safetensors.torch import save_file

    if not isinstance(predictor, FittedPredictor):
        raise ArtifactError(
            f"only a predictor from fit() can be saved, got {type(predictor).__name__}; fit one."
        )
    tensors = {f"scaling.{name}": value for name, value in predictor.scaling.tensors().items()}
    tensors |= {f"core.{name}": value for name, value in predictor.core.tensors().items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / NUMBERS)
    header = {"version": VERSION, "family": predictor.family}
    (folder / HEADER).write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")


def load(folder: Path) -> Predictor:
    """Read what `save` wrote; the posterior is the saved predictor's.

    Raises:
        ArtifactError: If a file is missing, damaged, or of another version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
        version, family = header["version"], FAMILIES[header["family"]]
        if version != VERSION:
            raise ArtifactError(f"{folder} has version {version}, not {VERSION}; run fit again.")
        # Inside the file a tensor lies anywhere; sums round as before only where memory is aligned
        # as before.
        tensors = {name: value.clone() for name, value in load_file(folder / NUMBERS).items()}
        scaling = _part(tensors, "scaling.")
        with single_thread():
            core = family.restore(_part(tensors, "core."))
        return FittedPredictor(
            header["family"], core, Scaling(**{f.name: scaling[f.name] for f in fields(Scaling)})
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ArtifactError(
            f"cannot read the predictor {folder} ({error!r}); run the fit stage again."
        ) from error


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
