"""Networks by name: our own, torchvision's, or the user's; with weights or a checkpoint."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import logging
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

from torch import nn
from torchvision import models

from seernet.config import ModelConfig
from seernet.errors import ModelError
from seernet.models.detector import Detector, thaw
from seernet.models.detectors import fasterrcnn_resnet18, torchvision_detector
from seernet.models.resnet20 import resnet20
from seernet.models.small_ssd import small_ssd
from seernet.models.state import load_checkpoint, unfetched
from seernet.models.vgg_small import vgg_small

logger = logging.getLogger(__name__)

OWN: dict[str, dict[str, Callable[..., nn.Module]]] = {
    "classification": {"resnet20": resnet20, "vgg_small": vgg_small},
    "detection": {"small_ssd": small_ssd, "fasterrcnn_resnet18": fasterrcnn_resnet18},
}
_TORCHVISION = {"classification": models, "detection": models.detection}
_AUXILIARY = ("googlenet", "inception_v3")  # build auxiliary heads unless told otherwise


def build(
    config: ModelConfig,
    num_classes: int,
    input_shape: tuple[int, ...],
    task: str = "classification",
    overwritten: bool = False,
) -> nn.Module:
    """Build the network of the `model` section.

    A builder of ours or of the user's gets `num_classes`, `in_channels` and `image_size`, each if
    its signature names it, and then `model.arguments`.

    Args:
        config: The section.
        num_classes: Classes of the data set.
        input_shape: Channels, height and width of one image.
        task: `classification` or `detection`; a detector becomes a `Detector`.
        overwritten: Whether all weights will be loaded from elsewhere, so that torchvision need
            not fetch those that the arguments name (`weights_backbone`).

    Returns:
        The network, with its weights or checkpoint loaded if one is named, on the CPU.

    Raises:
        ModelError: If the name, the arguments, the weights or the checkpoint do not fit.
    """
    if config.name.startswith("torchvision:"):
        with unfetched() if overwritten or config.checkpoint else nullcontext():
            model = _torchvision(config, num_classes, input_shape, task)
    elif config.weights is not None:
        raise ModelError(
            f"model.weights ({config.weights!r}) goes with torchvision networks only, not with "
            f"{config.name!r}; name a file in model.checkpoint instead."
        )
    else:
        model = _call(config, num_classes, input_shape, task)
    if task == "detection":
        model = Detector(thaw(model))
        model.check(input_shape, num_classes)
    if config.checkpoint is not None:
        inner = model.model if isinstance(model, Detector) else model
        load_checkpoint(inner, Path(config.checkpoint))
    return model


def _call(
    config: ModelConfig, num_classes: int, input_shape: tuple[int, ...], task: str
) -> nn.Module:
    builder = OWN[task].get(config.name) or _users(config.name, task)
    offered = {
        "num_classes": num_classes,
        "in_channels": input_shape[0],
        "image_size": input_shape[-1],
    }
    arguments: dict[str, object] = {}
    try:
        accepted = inspect.signature(builder).parameters
        arguments = {key: value for key, value in offered.items() if key in accepted}
        model = builder(**(arguments | config.arguments))
    except Exception as error:  # the user's code may raise anything; the cause stays attached
        raise ModelError(
            f"model {config.name!r} cannot be built with {arguments | config.arguments}: "
            f"{type(error).__name__}: {error}; check model.arguments."
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"{config.name!r} must return a torch.nn.Module, not {type(model).__name__}."
        )
    return model


def _users(name: str, task: str) -> Callable[..., nn.Module]:
    place, separator, function = name.rpartition(":")
    if not separator:
        other = next((kind for kind, known in OWN.items() if name in known), None)
        if other is not None:
            raise ModelError(
                f"model.name {name!r} is for {other}, and the data set is for {task}; use "
                f"{', '.join(OWN[task])}, or change data.name."
            )
        raise ModelError(
            f"unknown model {name!r} for {task}{_near(name, task)}; use {', '.join(OWN[task])}, "
            "torchvision:<name>, file.py:function or package.module:function."
        )
    if place.endswith(".py") and not Path(place).is_file():
        raise ModelError(
            f"model file {place!r} does not exist; model.name starts at the repository's root."
        )
    _reach_the_root()
    try:
        is_file = place.endswith(".py")
        module = _module_of_file(Path(place)) if is_file else importlib.import_module(place)
    except Exception as error:  # importing the user's code may raise anything
        raise ModelError(
            f"cannot import {place!r} of model.name: {type(error).__name__}: {error}; correct "
            "the file or the name."
        ) from error
    builder = getattr(module, function, None)
    if not callable(builder):
        raise ModelError(
            f"{place!r} has no function {function!r} that returns a torch.nn.Module; check "
            "model.name."
        )
    return builder  # type: ignore[no-any-return]


def definition(name: str) -> list[Path]:
    """The Python files that may define a network of the user's; none for other networks.

    They are the file that is named (or the package of the module) and all beside and below it,
    because it may import them; of what lies at the repository's root, only what is beside it.

    Raises:
        ModelError: If they cannot be found.
    """
    place = name.rpartition(":")[0]
    if place in ("", "torchvision"):
        return []
    _reach_the_root()
    try:
        if place.endswith(".py"):
            path = Path(place)
        else:
            importlib.invalidate_caches()
            spec = importlib.util.find_spec(place.partition(".")[0])
            path = Path((spec and spec.origin) or place)
        if not path.is_file():
            raise FileNotFoundError(f"no such file: {path}")
    except (ImportError, OSError) as error:
        raise ModelError(
            f"cannot read the model file {place} ({error}); check model.name."
        ) from error
    if path.parent.name.endswith("-packages"):
        return [path]  # an installed module of one file
    at_root = path.parent.resolve() == Path.cwd()
    return sorted(path.parent.glob("*.py") if at_root else path.parent.rglob("*.py"))


def _reach_the_root() -> None:
    """Let modules in the working folder be imported: scripts start with their own folder."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))


def _near(name: str, task: str) -> str:
    """A hint at names that look alike, or nothing."""
    published = models.list_models(module=_TORCHVISION[task])
    known = [*OWN[task], *(f"torchvision:{item}" for item in published)]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    inside = [item for item in known if item.endswith(f":{name}")]
    near = list(dict.fromkeys([*inside, *close]))
    return f" (near: {', '.join(near)})" if near else ""


def _module_of_file(path: Path) -> ModuleType:
    """Import a file; registered like any module, which dataclasses in it rely on."""
    name = f"seernet_model_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _torchvision(
    config: ModelConfig, num_classes: int, input_shape: tuple[int, ...], task: str
) -> nn.Module:
    name = config.name.removeprefix("torchvision:")
    if name not in models.list_models(module=_TORCHVISION[task]):
        kind = {"classification": "classifier", "detection": "detector"}[task]
        raise ModelError(
            f"torchvision has no {kind} {name!r}{_near(config.name, task)}; check model.name."
        )
    if task == "detection":
        model = torchvision_detector(name, num_classes, input_shape[-1], config.arguments)
        if config.weights is not None:
            _load_weights(model, name, config.weights)
        return model
    extra = {"aux_logits": False, "init_weights": False} if name in _AUXILIARY else {}
    arguments = {"weights": None, "num_classes": num_classes} | extra | config.arguments
    try:
        classifier: nn.Module = models.get_model(name, **arguments)
    except Exception as error:  # torchvision's builders check their arguments in many ways
        raise ModelError(
            f"torchvision's {name!r} does not take {config.arguments}: {error}; "
            "check model.arguments."
        ) from error
    if config.weights is not None:
        _load_weights(classifier, name, config.weights)
    return classifier


def _load_weights(model: nn.Module, name: str, weights: str) -> None:
    """Load published weights, leaving out a classifier of another number of classes."""
    try:
        choice = models.get_model_weights(name)[weights]
    except KeyError as error:
        known = ", ".join(item.name for item in models.get_model_weights(name))
        raise ModelError(
            f"torchvision has no weights {weights!r} for {name!r}; choose from: {known}."
        ) from error
    try:
        state = choice.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # the network, the disk, a damaged file: the remedy is the same
        raise ModelError(
            f"the weights {weights!r} of {name!r} cannot be fetched from {choice.url}: {error}; "
            "connect to the internet, put the file into the folder torch.hub.get_dir()/checkpoints,"
            " or name a local file in model.checkpoint."
        ) from error
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    fitting = {key: value for key, value in state.items() if shapes.get(key) == value.shape}
    left_out = sorted(set(shapes) - set(fitting))
    model.load_state_dict(fitting, strict=False)
    if left_out:
        logger.warning("weights %s leave untrained: %s", weights, ", ".join(left_out))
