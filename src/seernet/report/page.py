"""The report as one page that opens offline: no script, no font and no image is fetched."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from seernet.artifacts import TRADEOFF
from seernet.config import DataConfig, Params
from seernet.errors import ArtifactError
from seernet.report.artifacts import Artifacts
from seernet.report.figures.predictor import FAMILIES
from seernet.report.headline import headline
from seernet.report.tables import summarize

TEMPLATE = "page.html"
TRUSTED = 0.2  # R2 in cross-validation, below which the page warns


@dataclass(frozen=True)
class Caption:
    """A figure of the report: its file below the figures' folder, and what it says."""

    file: str
    title: str
    text: str


CAPTIONS = (
    Caption(
        "tradeoff.png",
        "Score against cost",
        "(a) Finetuned networks on the test split, over BOPs or a cost that all budgets limit; "
        "with several seeds, the mean and bars from the worst to the best. (b) Every policy "
        "measured, by a short training run on the search split; these scores chose the policies "
        "and do not compare with (a).",
    ),
    Caption(
        "front.png",
        "Predicted front",
        "The best short-evaluation score that the predictor expects at each cost, with its 80 % "
        "interval, and what the chosen policies score on the search split once finetuned.",
    ),
    Caption(
        "policies.png",
        "Policies, layer by layer",
        "Bit-widths and channels kept, one row for each budget; darker is wider.",
    ),
    Caption(
        "predictor.png",
        "Predictor",
        "Held-out predictions only. (a) Bars are 80 % intervals. (b) A calibrated predictor "
        "follows the diagonal; below it, it is overconfident. (c, d) Fitted to the first "
        "measurements only, held against the random policies, which no predictor sees.",
    ),
    Caption(
        "compute.png",
        "Compute",
        "Training, and measuring policies with all it takes, in multiply-accumulates; the "
        "baseline's soft targets and the scoring in pretraining and finetuning are not counted. "
        "Measuring policies is paid once, however many budgets follow. Each method counts as if "
        "alone: where two chose one policy, it was finetuned once.",
    ),
)


def render(
    params: Params, artifacts: Artifacts, figures: Path, notebooks: Sequence[str] = ()
) -> str:
    """Render the report as HTML.

    Args:
        params: The parameters of the run, to be shown.
        artifacts: Its files.
        figures: Folder of the figures that the notebooks drew.
        notebooks: Links to the executed notebooks, relative to the page.

    Returns:
        The page, with its figures inside it.

    Raises:
        ArtifactError: If a figure or an artifact is missing.
    """
    summary, pretrain = summarize(artifacts.tradeoff()), artifacts.metrics("pretrain")
    table = headline(summary, pretrain)
    evaluations, fit = artifacts.evaluations(), artifacts.metrics("fit")
    searched = evaluations[evaluations["origin"] != "random"]
    budgets = list(dict.fromkeys(summary["budget"]))
    if set(budgets) != set(params.budgets):
        raise ArtifactError(
            f"{artifacts.root / TRADEOFF} has the budgets {', '.join(budgets)}, params.yaml "
            f"{', '.join(params.budgets)}; run `dvc repro collect`."
        )
    environment = Environment(
        loader=PackageLoader("seernet.report", "."), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template(TEMPLATE).render(
        model=params.model.name,
        data=_named(params.data),
        budgets=budgets,
        seeds=len(params.finetune.seeds),
        searched=len(searched),
        failed=int(searched["score"].isna().sum()),
        columns=list(table.columns),
        rows=list(_rows(table)),
        fit=fit,
        trusted=TRUSTED,
        families=FAMILIES,
        figures=[(caption, _inline(figures / caption.file)) for caption in CAPTIONS],
        sections=_sections(params, budgets),
        notebooks=notebooks,
    )


def _named(data: DataConfig) -> str:
    """The data set's name; of the user's own, that of its folder."""
    own = data.path is not None and data.name in ("imagefolder", "voc", "coco")
    return Path(str(data.path)).name if own else data.name


def _rows(table: pd.DataFrame) -> Iterator[tuple[bool, list[str]]]:
    """Rows as text, each with whether it opens a new budget."""
    previous = ""
    for values in table.itertuples(index=False):
        yield values[0] != previous, list(values)
        previous = values[0]


def _inline(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"the figure {path} is missing ({error.strerror}); run the notebooks: "
            "`dvc repro -f report`."
        ) from error
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"


def _sections(params: Params, budgets: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """The parameters as text, by section; budgets in the table's order, not the file's."""
    document = params.model_dump(exclude_none=True)
    document["budgets"] = {budget: document["budgets"][budget] for budget in budgets}
    general = {key: document.pop(key) for key in list(document) if not _is_section(document[key])}
    return {name: list(_flat(values)) for name, values in {"general": general, **document}.items()}


def _is_section(value: Any) -> bool:
    return isinstance(value, dict)


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield above + key, ", ".join(map(str, value)) if isinstance(value, list) else str(value)
