"""Figures show every method and layer, name their units, and survive small and large runs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from seernet.errors import ArtifactError
from seernet.report import Artifacts, collect, figures
from seernet.report.figures.front import spread
from seernet.report.figures.policies import _NAME_LENGTH, _short
from seernet.report.figures.predictor import NOMINAL, observed_coverage
from seernet.report.figures.style import metric_label, prefix
from seernet.report.tables import compute_table, layer_table, summarize

Write = Callable[..., Path]
BUDGETS = ("tiny", "small", "medium", "large", "phone", "camera", "gateway", "server")


def drawing(root: Path, count: int) -> dict[str, Callable[[], Figure]]:
    """How each figure is drawn."""
    run, budgets = Artifacts(root), BUDGETS[:count]
    summary = summarize(collect(budgets, root / "results/metrics"))
    pretrain, evaluations = run.metrics("pretrain"), run.evaluations()
    phases = compute_table(
        pretrain,
        run.metrics("sample"),
        [run.metrics("finetune", budget) for budget in budgets],
        [run.metrics("baseline", budget) for budget in budgets],
    )
    return {
        "tradeoff": lambda: figures.tradeoff(summary, evaluations, pretrain),
        "predictor": lambda: figures.predictor(
            run.cross_validation(), run.learning_curve(), run.metrics("fit"), pretrain["metric"]
        ),
        "policies": lambda: figures.policies(
            layer_table(run.graph(), {budget: run.policy(budget) for budget in budgets})
        ),
        "compute": lambda: figures.compute(phases),
        "front": lambda: figures.front(run.front(), summary, evaluations, pretrain["metric"]),
    }


def legend(figure: Figure, panel: int) -> list[str]:
    return [text.get_text() for text in figure.axes[panel].get_legend().get_texts()]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("count", "layers", "seeds", "with_random", "metric"),
    [(1, 12, (0,), False, "top1"), (8, 120, (0, 1, 2), True, "map")],
)
def test_figures_survive_small_and_large_runs(
    synthetic: Write,
    tmp_path: Path,
    count: int,
    layers: int,
    seeds: tuple[int, ...],
    with_random: bool,
    metric: str,
) -> None:
    root = synthetic(
        budgets=count, layers=layers, seeds=seeds, with_random=with_random, metric=metric
    )
    for name, draw in drawing(root, count).items():
        path = figures.save(draw(), tmp_path / f"{name}.png", dpi=40)
        assert path.read_bytes().startswith(b"\x89PNG")


def test_tradeoff_draws_every_method_and_the_baseline(synthetic: Write) -> None:
    figure = drawing(synthetic(), 3)["tradeoff"]()
    assert legend(figure, 0) == ["Baseline (32 bits)", "SeerNet", "Uniform policy", "Random search"]
    assert legend(figure, 1) == [
        "Baseline (32 bits)",
        "Random",
        "SeerNet, initial",
        "SeerNet, active",
    ]


def test_axes_name_their_units(synthetic: Write) -> None:
    shown = ("tradeoff", "front", "compute", "predictor")
    draw = drawing(synthetic(metric="map"), 3)
    drawn = {name: draw[name]() for name in shown}
    tradeoff, front = drawn["tradeoff"].axes[0], drawn["front"].axes[0]
    assert (tradeoff.get_xlabel(), tradeoff.get_ylabel()) == (
        "Cost (MBOPs)",
        "Test mAP@[.5:.95] (%)",
    )
    assert (front.get_xlabel(), front.get_ylabel()) == ("Cost (MBOPs)", "mAP@[.5:.95] (%)")
    assert drawn["compute"].axes[0].get_xlabel().endswith("(TMACs)")
    assert drawn["predictor"].axes[2].get_ylabel() == "RMSE (percentage points)"


@pytest.mark.parametrize(
    ("cost", "label", "top"),
    [
        ("macs", "Cost (kMACs)", "MACs of the baseline / MACs"),
        ("size_bytes", "Size (kB)", "bytes of the baseline / bytes"),
        ("latency_ms", "Latency (ms)", None),
    ],
)
def test_tradeoff_is_drawn_over_the_cost_that_budgets_limit(
    synthetic: Write, cost: str, label: str, top: str | None
) -> None:
    root = synthetic()
    run, summary = Artifacts(root), summarize(collect(BUDGETS[:3], root / "results/metrics"))
    summary = summary.assign(**{cost: 2000.0 + summary.index})
    figure = figures.tradeoff(summary, run.evaluations(), run.metrics("pretrain"), cost)
    finetuned, short = figure.axes[:2]
    assert (finetuned.get_xlabel(), short.get_xlabel()) == (label, "Cost (MBOPs)")
    assert {axes.get_xlabel() for axes in figure.axes[2:]} == {"BOPs of the baseline / BOPs"} | (
        {top} if top else set()
    )
    divisor = 1.0 if cost == "latency_ms" else 1000.0
    drawn = [x for line in finetuned.lines for x in line.get_xdata()]
    assert 2000.0 / divisor in drawn


def test_top_axis_reads_as_baseline_over_cost(synthetic: Write) -> None:
    root = synthetic()
    figure = drawing(root, 3)["tradeoff"]()
    baseline = Artifacts(root).metrics("pretrain")["baseline_bops"] / 1e6
    bottom = figure.axes[0]
    top = next(
        axes
        for axes in figure.axes[1:]
        if axes.get_xlabel() == "BOPs of the baseline / BOPs"
        and np.allclose(axes.get_position().bounds, bottom.get_position().bounds)
    )
    (place,) = bottom.transData.transform([(120.0, 90.0)])[:, 0]
    (ratio,) = top.transData.inverted().transform([(place, 0.0)])[:, 0]
    assert ratio == pytest.approx(baseline / 120.0)


def test_several_seeds_get_bars_from_worst_to_best(synthetic: Write) -> None:
    root = synthetic(budgets=1, seeds=(0, 1, 2), with_random=False)
    scores = collect(("tiny",), root / "results/metrics").query("method == 'seernet'")["test_score"]
    container = drawing(root, 1)["tradeoff"]().axes[0].containers[0]
    (bar,) = container.lines[2][0].get_segments()
    assert bar[:, 1] == pytest.approx([100 * scores.min(), 100 * scores.max()])


@pytest.mark.filterwarnings("error")
def test_predictor_without_a_learning_curve_says_why(synthetic: Write, tmp_path: Path) -> None:
    root = synthetic()
    path = root / "models/predictor/learning_curve.csv"
    path.write_text("evaluations,rmse,kendall_tau,r2\n", encoding="utf-8")
    figure = drawing(root, 3)["predictor"]()
    for axes in figure.axes[2:4]:
        assert [text.get_text() for text in axes.texts if "Too few random" in text.get_text()]
    assert figures.save(figure, tmp_path / "a.png", dpi=40).stat().st_size > 0


def test_policies_map_holds_every_budget_and_layer(synthetic: Write) -> None:
    figure = drawing(synthetic(budgets=8, layers=120), 8)["policies"]()
    images = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert [image.shape for image in images[:3]] == [(8, 120)] * 3


def test_front_names_every_budget(synthetic: Write) -> None:
    figure = drawing(synthetic(budgets=8), 8)["front"]()
    assert {text.get_text() for text in figure.axes[0].texts} == set(BUDGETS)


def test_saved_figure_holds_no_software_and_no_date(synthetic: Write, tmp_path: Path) -> None:
    figure = drawing(synthetic(), 3)["compute"]()
    content = figures.save(figure, tmp_path / "a.png").read_bytes()
    assert b"Software" not in content
    assert b"tIME" not in content
    assert content == figures.save(figure, tmp_path / "b.png").read_bytes()


def test_coverage_of_known_errors() -> None:
    # 0.5 and 3 standard deviations off: only the first lies in central intervals of 38.3 % and up.
    predictions = pd.DataFrame({"score": [0.5, 3.0], "mean": [0.0, 0.0], "std": [1.0, 1.0]})
    observed = observed_coverage(predictions)
    assert list(observed[NOMINAL < 0.38]) == [0.0] * 7
    assert list(observed[NOMINAL > 0.39]) == [0.5] * 12


def test_crowded_names_move_apart_and_lonely_ones_stay() -> None:
    assert spread(np.array([0.2, 0.5, 0.5]), 0.1) == pytest.approx([0.2, 0.45, 0.55])
    assert spread(np.array([0.5, 0.51, 0.58]), 0.1) == pytest.approx([0.43, 0.53, 0.63])


def test_prefix_prints_from_one_to_a_thousand() -> None:
    assert prefix(2.5e9) == (1e9, "G")
    assert prefix(999.0) == (1.0, "")


def test_unknown_metric_is_refused() -> None:
    with pytest.raises(ArtifactError, match="got 'f1'"):
        metric_label("f1")


def test_names_of_layers_that_differ_stay_different_when_cut() -> None:
    heads = [f"model.head.{kind}_head.module_list.0.1" for kind in ("regression", "classification")]
    short = [_short(name) for name in heads]
    assert len(set(short)) == 2
    assert max(map(len, short)) <= _NAME_LENGTH
    assert _short("layer1.0.conv1") == "layer1.0.conv1"
