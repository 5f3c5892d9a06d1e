"""The page opens offline and shows what the table holds."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from seernet.config import Params, validate
from seernet.errors import ArtifactError
from seernet.report import Artifacts, collect
from seernet.report.headline import headline
from seernet.report.page import CAPTIONS, render
from seernet.report.tables import summarize

Write = Callable[..., Path]
BUDGETS = ("tiny", "small", "medium")


def make_params(model: str = "resnet20") -> Params:
    return validate(
        {
            "seed": 0,
            "data": {"name": "digits"},
            "model": {"name": model},
            "pretrain": {"epochs": 1},
            "space": {},
            "sample": {"evaluations": 48, "cost_range": [0.003, 0.03], "evaluation": {}},
            "predictor": {},
            "optimize": {},
            "budgets": {name: {"bops_ratio": 0.01} for name in reversed(BUDGETS)},
            "finetune": {"epochs": 1},
            "report": {},
        }
    )


def prepare(root: Path) -> Path:
    collect(BUDGETS, root / "results/metrics").to_csv(root / "results/tradeoff.csv", index=False)
    figures = root / "results/figures"
    figures.mkdir()
    for caption in CAPTIONS:
        (figures / caption.file).write_bytes(b"figure")
    return figures


class Loads(HTMLParser):
    """Collects what a browser fetches to show a page, and the tags it meets."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = ("src", "srcset", "data", "poster") + (("href",) if tag == "link" else ())
        self.sources += [value or "" for name, value in attrs if name in names]


def test_page_loads_nothing_from_outside(synthetic: Write) -> None:
    root = synthetic()
    page = render(make_params(), Artifacts(root), prepare(root), ["../notebooks/1_tradeoff.ipynb"])
    loads = Loads()
    loads.feed(page)
    assert len(loads.sources) >= len(CAPTIONS)
    assert all(source.startswith("data:") for source in loads.sources)
    assert not {"script", "iframe", "object"} & set(loads.tags)
    assert not re.search(r"https?://|@import|url\(", page)


def test_page_shows_every_budget_and_method(synthetic: Write) -> None:
    root = synthetic()
    page = render(make_params(), Artifacts(root), prepare(root))
    for text in (*BUDGETS, "SeerNet", "Uniform policy", "Random search", "Gaussian process"):
        assert text in page


def test_page_says_how_many_policies_the_search_measured(synthetic: Write) -> None:
    root = synthetic()  # 24 initial ones, of which one failed, and 40 active ones
    page = render(make_params(), Artifacts(root), prepare(root))
    assert "One search of 64 measured policies (1 failed)" in " ".join(page.split())


def test_page_says_with_how_many_seeds_networks_were_finetuned(synthetic: Write) -> None:
    root, params = synthetic(), make_params()
    figures = prepare(root)
    assert "seeds, and" not in render(params, Artifacts(root), figures)
    finetune = params.finetune.model_copy(update={"seeds": [0, 1, 2]})
    page = render(params.model_copy(update={"finetune": finetune}), Artifacts(root), figures)
    assert "finetuned with 3 seeds, and each result tested once" in " ".join(page.split())


def test_page_calls_own_data_by_its_folder(synthetic: Write) -> None:
    root, params = synthetic(), make_params()
    data = params.data.model_copy(update={"name": "voc", "path": "data/raw/blood-cells"})
    page = render(params.model_copy(update={"data": data}), Artifacts(root), prepare(root))
    assert "resnet20 on blood-cells, compressed" in page
    assert "resnet20 on digits, compressed" in render(
        params, Artifacts(root), root / "results/figures"
    )


def test_page_is_refused_for_a_table_of_other_budgets(synthetic: Write) -> None:
    root = synthetic()
    figures = prepare(root)
    budgets = {"renamed": make_params().budgets["tiny"]}
    params = make_params().model_copy(update={"budgets": budgets})
    with pytest.raises(ArtifactError, match="run `dvc repro collect`"):
        render(params, Artifacts(root), figures)


def test_page_warns_of_a_predictor_that_explains_nothing(synthetic: Write) -> None:
    root = synthetic()
    figures = prepare(root)
    warning = "Do not rely on these policies"
    assert warning not in render(make_params(), Artifacts(root), figures)
    path = root / "results/metrics/fit.json"
    metrics = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(metrics | {"r2": -0.5}), "utf-8")
    page = " ".join(render(make_params(), Artifacts(root), figures).split())
    assert f"{warning}:</strong> in cross-validation the predictor" in page
    assert "explains nothing of the variance" in page


def test_compute_figure_says_what_is_not_counted() -> None:
    notebook = Path(__file__).parents[2] / "notebooks/3_policies.ipynb"
    (caption,) = (caption.text for caption in CAPTIONS if caption.file == "compute.png")
    for text in (caption, notebook.read_text(encoding="utf-8")):
        assert "soft targets and the scoring in pretraining and finetuning are not counted" in text


def test_page_escapes_what_it_is_given(synthetic: Write) -> None:
    root = synthetic()
    page = render(make_params("<b>x</b>.py:net"), Artifacts(root), prepare(root))
    assert "<b>" not in page
    assert "&lt;b&gt;x" in page


def test_missing_figure_names_the_stage(synthetic: Write) -> None:
    root = synthetic()
    figures = prepare(root)
    (figures / "front.png").unlink()
    with pytest.raises(ArtifactError, match=r"front\.png is missing.*dvc repro -f report"):
        render(make_params(), Artifacts(root), figures)


def test_headline_prints_units_and_loss(synthetic: Write) -> None:
    root = synthetic(budgets=1, seeds=(0, 1))
    tradeoff = collect(("tiny",), root / "results/metrics").query("method == 'seernet'")
    tradeoff = tradeoff.assign(
        cost_bops=1.5e8, macs=3e6, size_bytes=7470, test_score=[0.90, 0.92], baseline_score=0.95
    )
    pretrain = {
        "metric": "top1",
        "baseline_bops": 2.0e10,
        "baseline_macs": 2.0e7,
        "baseline_size_bytes": 1089896,
    }
    table = headline(summarize(tradeoff), pretrain)
    assert list(table.columns)[2:4] == ["Cost (MBOPs)", "BOPs ratio (%)"]
    assert list(table.columns)[4:6] == ["Cost (MMACs)", "Size (kB)"]
    assert list(table["Cost (MMACs)"]) == ["20", "3"]
    assert list(table["Cost (MBOPs)"]) == ["20,000", "150"]
    assert list(table["Size (kB)"]) == ["1,090", "7.47"]
    assert list(table["Test top-1 accuracy (%)"]) == ["95.0", "91.0 (90.0 to 92.0)"]
    assert list(table["Loss (points)"]) == ["", "4.0"]
    timed = headline(summarize(tradeoff.assign(latency_ms=[1.25, 1.25])), pretrain)
    assert list(timed["Latency (ms)"]) == ["", "1.25"]
