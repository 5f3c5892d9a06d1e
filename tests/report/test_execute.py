"""Executed notebooks are the same bytes every time, and their mistakes are told in one line."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from seernet.errors import ArtifactError, ConfigError
from seernet.report import collect
from seernet.report.execute import check_parameters, execute, execute_all, normalize
from seernet.report.page import CAPTIONS

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def write_notebook(path: Path, cells: Sequence[str]) -> Path:
    parameters = new_code_cell("dpi = 160", metadata={"tags": ["parameters"]})
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    notebook = new_notebook(
        cells=[parameters, *(new_code_cell(cell) for cell in cells)],
        metadata={"kernelspec": kernel},
    )
    path.write_text(nbformat.writes(notebook))
    return path


@pytest.fixture
def foreign_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another environment's `python3`, found before ours by whoever asks Jupyter's folders."""
    folder = tmp_path / "share/kernels/python3"
    folder.mkdir(parents=True)
    kernel = {"argv": ["/missing/python"], "display_name": "other", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(kernel))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.mark.usefixtures("foreign_kernel")
def test_second_execution_is_byte_identical(tmp_path: Path) -> None:
    source = write_notebook(
        tmp_path / "a.ipynb",
        [
            "import sys; print(dpi); print('progress', file=sys.stderr)",
            "for i in range(3): print(i, flush=True)",
            "sys.executable",
        ],
    )
    first, second = (
        execute(source, tmp_path / f"{name}.ipynb", {"dpi": 40}).read_bytes() for name in "xy"
    )
    assert first == second
    cells = json.loads(first)["cells"]
    assert [output["text"] for output in cells[2]["outputs"]] == [["40\n"]]
    assert [output["text"] for output in cells[3]["outputs"]] == [["0\n", "1\n", "2\n"]]
    assert cells[4]["outputs"][0]["data"]["text/plain"] == [
        repr(str(Path(sys.executable).absolute()))
    ]


def test_failing_cell_is_told_in_one_line(tmp_path: Path) -> None:
    source = write_notebook(
        tmp_path / "a.ipynb",
        [
            "from seernet.errors import ArtifactError",
            "raise ArtifactError('x.csv is missing; run its stage: `dvc repro fit`.')",
        ],
    )
    with pytest.raises(ArtifactError, match=r"a\.ipynb failed: x\.csv is missing") as caught:
        execute(source, tmp_path / "b.ipynb", {})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "b.ipynb").exists()


def test_normalize_takes_out_times_ids_and_progress() -> None:
    def notebook(tag: str, pieces: Sequence[str]) -> nbformat.NotebookNode:
        outputs = [new_output("stream", name="stderr", text=f"{tag} %")]
        outputs += [new_output("stream", name="stdout", text=piece) for piece in pieces]
        code = new_code_cell("1", id=f"id-{tag}", outputs=outputs)
        code.metadata.update({"papermill": {"start_time": tag}, "execution": {"iopub": tag}})
        text = new_markdown_cell("question", id=f"other-{tag}")
        return new_notebook(cells=[text, code], metadata={"papermill": {"duration": tag}})

    first = nbformat.writes(normalize(notebook("a", ["one ", "two"])))
    second = nbformat.writes(normalize(notebook("b", ["one", " t", "wo"])))
    assert first == second
    assert "one two" in first


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_unknown_parameter_is_refused(notebook: Path) -> None:
    check_parameters(notebook, {"dpi": 160, "root": "."})
    with pytest.raises(ConfigError, match="dots_per_inch"):
        check_parameters(notebook, {"dots_per_inch": 160})


def test_missing_notebook_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"none\.ipynb"):
        check_parameters(tmp_path / "none.ipynb", {})


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_keeps_to_the_conventions(notebook: Path) -> None:
    cells = nbformat.read(notebook, 4).cells
    assert len(cells) <= 15
    assert cells[0].cell_type == "markdown"
    assert cells[0].source.strip("*").endswith("?")
    assert all(not cell.get("outputs") for cell in cells)
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    assert not {"def", "class"} & {line.split(" ")[0] for line in code.splitlines()}


@pytest.mark.pipeline
def test_all_notebooks_draw_what_the_page_shows(synthetic: Callable[..., Path]) -> None:
    root = synthetic()
    budgets = ("tiny", "small", "medium")
    collect(budgets, root / "results/metrics").to_csv(root / "results/tradeoff.csv", index=False)

    def run() -> dict[str, bytes]:
        execute_all(NOTEBOOKS, root / "results/notebooks", {"dpi": 40}, root)
        files = [*root.glob("results/notebooks/*"), *root.glob("results/figures/*")]
        return {path.name: path.read_bytes() for path in files}

    first = run()
    assert {caption.file for caption in CAPTIONS} <= set(first)
    assert first == run()
