"""Training of the baseline, which goes on where an interrupted run stopped."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from seernet.config import Params
from seernet.data import Augment, Dataset
from seernet.evaluation.baseline import inputs
from seernet.evaluation.finetuning import Folders
from seernet.store import code_digest, digest
from seernet.training import Plan, fit, remove_progress

CODE = ("data", "evaluation/baseline", "evaluation/pretraining", "models", "training")


class Pretrainer:
    """Trains the baseline.

    Args:
        params: All parameters; `pretrain`, `data`, `model`, `seed` count.
        folders: Prepared data and progress files; there is no baseline yet.
    """

    def __init__(self, params: Params, folders: Folders) -> None:
        self.params = params
        key = digest(
            [
                inputs(folders.prepared, params.data, params.model, params.device),
                params.model.model_dump(),  # weights and checkpoint, from which it starts
                params.pretrain.model_dump(),
                params.seed,
                code_digest(CODE),
            ]
        )
        self._checkpoint = folders.progress / f"pretrain-{key}.safetensors"

    def run(
        self,
        model: nn.Module,
        dataset: Dataset,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
    ) -> float:
        """Train `model` in place, going on after the last finished epoch of an interrupted run.

        Args:
            model: The network with its first weights, on the device.
            dataset: The prepared data.
            on_epoch: Called with each epoch's row.

        Returns:
            Score on the search split, in [0, 1].

        Raises:
            TrainingError: If the loss is not a number.
        """
        data = self.params.data
        plan = Plan(
            config=self.params.pretrain,
            augment=Augment(data.crop_padding, data.flip),
            seed=self.params.seed,
            checkpoint=self._checkpoint,
            on_epoch=on_epoch,
            label="pretraining",
        )
        return fit(model, dataset, plan).search_score

    def finish(self) -> None:
        """Remove the progress file, once the baseline is written."""
        remove_progress(self._checkpoint)
