"""Training of the baseline, which goes on where an interrupted run stopped."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from torch import nn

from seernet.config import Params
from seernet.data import Augment, Dataset
from seernet.distributed import ALONE, Team
from seernet.evaluation.baseline import inputs
from seernet.evaluation.finetuning import Folders
from seernet.evaluation.together import fit_together
from seernet.store import code_digest, digest
from seernet.training import Plan

CODE = (
    "data",
    "evaluation/baseline",
    "evaluation/pretraining",
    "evaluation/shares",
    "evaluation/together",
    "models",
    "training",
)


class Pretrainer:
    """Trains the baseline.

    Args:
        params: All parameters; `pretrain`, `data`, `model`, `seed` count.
        folders: Prepared data and progress files; there is no baseline yet.
        team: The processes that train it together; all do the same.
    """

    def __init__(self, params: Params, folders: Folders, team: Team = ALONE) -> None:
        self.params = params
        self.folders = folders
        self._team = team
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
            on_epoch: Called with each epoch's row, in the process that leads.

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
        return fit_together(self._team, model, dataset, plan).search_score

    def finish(self) -> None:
        """Remove the progress folder, once the baseline is written."""
        shutil.rmtree(self.folders.progress, ignore_errors=True)
