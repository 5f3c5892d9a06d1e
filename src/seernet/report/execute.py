"""Papermill runs the notebooks; what it writes is normalised, so that a second run is identical.

Papermill and Jupyter put times, random cell ids and progress into what they write. DVC would take
each for a change, so they are removed: two runs on the same artifacts give the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
import papermill
import zmq
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from papermill.exceptions import PapermillExecutionError
from traitlets import default
from traitlets.config import Config

from seernet.errors import ArtifactError, ConfigError
from seernet.parallel import LocalExecutor

KERNEL = "python3"
LONGEST_SOCKET = 90  # bytes; systems allow 103 to 107, and ZeroMQ appends a number
TIMEOUT = 600  # seconds a cell may take, so that a notebook that hangs ends with an error


class NativeKernelManager(AsyncKernelManager):
    """Starts kernels in the environment of the running interpreter, whatever else is installed.

    A kernel called `python3` in a user's folder may belong to another environment; with no folders
    to search, Jupyter falls back on the one of `sys.executable`.
    """

    @default("kernel_spec_manager")
    def _native(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[], ensure_native_kernel=True)


def execute_all(
    notebooks: Sequence[Path],
    output: Path,
    parameters: Mapping[str, Any],
    root: Path = Path(),
    workers: int = 2,
) -> list[Path]:
    """Execute notebooks side by side, each in a process with a kernel.

    Args:
        notebooks: The notebooks.
        output: Folder for the executed ones; they keep their names.
        parameters: Given to every notebook; each must define all of them.
        root: Working folder of the kernels.
        workers: How many run at once.

    Returns:
        The files written, in the order of `notebooks`.

    Raises:
        ConfigError: If a notebook does not define a parameter.
        ArtifactError: If a notebook is missing or fails, for example for want of an artifact.
    """
    targets = [output / notebook.name for notebook in notebooks]
    run = partial(execute, parameters=dict(parameters), root=root)
    # Papermill changes the process's working folder, so threads would disturb each other.
    with LocalExecutor(min(workers, len(notebooks))) as executor:
        return list(executor.map(run, notebooks, targets))


def execute(
    notebook: Path, output: Path, parameters: Mapping[str, Any], root: Path = Path()
) -> Path:
    """Execute one notebook and write it normalised; see `execute_all`."""
    check_parameters(notebook, parameters)
    with TemporaryDirectory() as private:  # a user's IPython start-up files must not run
        try:
            executed = papermill.execute_notebook(
                str(notebook),
                None,
                parameters=dict(parameters),
                kernel_name=KERNEL,
                cwd=str(root),
                progress_bar=False,
                execution_timeout=TIMEOUT,
                kernel_manager_class=NativeKernelManager,
                config=_connection(Path(private)),
                extra_arguments=[f"--ipython-dir={private}", "--log-level=CRITICAL"],
            )
        except PapermillExecutionError as error:
            raise ArtifactError(f"{notebook} failed: {_cause(error)}") from error
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(nbformat.writes(normalize(executed)) + "\n", encoding="utf-8")
    return output


def _connection(folder: Path) -> Config:
    """How kernel and client talk: through sockets in `folder`, not TCP.

    TCP ports are drawn by the client and bound by the kernel a moment later; another kernel that
    starts meanwhile may take one, and the notebook fails. They remain where ZeroMQ has no such
    sockets (Windows) or the folder's name is too long for one.
    """
    socket = folder / "kernel"
    if zmq.has("ipc") and len(os.fsencode(socket)) <= LONGEST_SOCKET:
        return Config({"NativeKernelManager": {"transport": "ipc", "ip": str(socket)}})
    return Config()


def _cause(error: PapermillExecutionError) -> str:
    if error.ename == ArtifactError.__name__:
        return str(error.evalue)
    message = " ".join(error.evalue.split())
    return (
        f"{error.ename} in cell {error.cell_index + 1}: {message}; what it reads may be of another "
        "version: run `dvc repro`, and report it if it stays"
    )


def check_parameters(notebook: Path, names: Mapping[str, Any]) -> None:
    """Refuse parameters that the notebook's tagged cell does not define; Papermill would only warn.

    Raises:
        ConfigError: If the notebook does not define one of `names`.
        ArtifactError: If the notebook cannot be read.
    """
    try:
        known = papermill.inspect_notebook(str(notebook))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"cannot read the notebook {notebook} ({error}); restore it from git."
        ) from error
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ConfigError(
            f"{notebook} takes the parameters {', '.join(sorted(known)) or 'none'}, got "
            f"{', '.join(unknown)}; define them in its cell tagged `parameters`."
        )


def normalize(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Take out what differs between two executions: times, random ids, progress.

    Args:
        notebook: An executed notebook, of format 4.5; changed in place.

    Returns:
        `notebook`.
    """
    notebook.metadata.pop("papermill", None)
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{index + 1}"
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = _joined([o for o in cell.outputs if o.get("name") != "stderr"])
    return notebook


def _joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Join neighbouring pieces of text: where a stream is cut depends on timing."""
    joined: list[nbformat.NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream" and joined and joined[-1].output_type == "stream":
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined
