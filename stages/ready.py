"""Is what DVC reads first whole? `make repro` asks before it starts.

Not a stage. DVC reads `params.yaml` too, but neither knows its schema nor looks where no stage
does; it refuses a `dvc.lock` that is not whole without a word on what to do; and it does not see
changes of files that lie outside of the folders that stages depend on.
"""

import difflib
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from seernet.config import Params, load
from seernet.errors import ArtifactError, ConfigError, SeerNetError

LOCK = Path("dvc.lock")


def main() -> None:
    """Read both files.

    Raises:
        ConfigError: If a parameter is wrong.
        ArtifactError: If the lock file is not whole.
    """
    params = load()
    check_latency_table(params.latency.table)
    check_lock()
    for key, place, watched, stage in unwatched(params):
        sys.stderr.write(
            f"warning: `{key}` names {place}, which is not below {watched} or is linked from "
            "elsewhere, so DVC does not see it change; after a change type "
            f"`dvc repro --single-item --force {stage}` first.\n"
        )


def check_latency_table(table: str) -> None:
    """See that what looks like a misspelt `measure` or `none` is the file that it says.

    Raises:
        ConfigError: If it is not.
    """
    words = ("none", "measure")
    near = difflib.get_close_matches(table, words, 1)
    if near and table not in words and not Path(table).exists():
        raise ConfigError(
            f"`latency.table` is {table!r}, and there is no such file; did you mean `{near[0]}`?"
        )


def check_lock() -> None:
    """See that `dvc.lock`, if there is one, holds stages.

    Raises:
        ArtifactError: If it does not.
    """
    if not LOCK.exists():
        return
    text = LOCK.read_text(encoding="utf-8", errors="replace")
    if any(line.startswith("<<<<<<< ") for line in text.splitlines()):
        raise ArtifactError(
            f"{LOCK} holds a merge conflict; take one side, `git checkout --ours {LOCK}` or "
            "`--theirs`, and run again: what either side's stages gave comes from DVC's cache or "
            "remote, and only what the merge changed is run."
        )
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError:
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("stages"), dict):
        raise ArtifactError(
            f"{LOCK} is cut off, which happens if DVC is killed while it writes it; type `git "
            f"restore {LOCK}` (or remove it, if it was never committed) and run again: what "
            "finished since comes from DVC's cache, and no measurement is lost."
        )


def unwatched(params: Params) -> Iterator[tuple[str, str, str, str]]:
    """The user's files that no stage depends on: key, value, where they would be seen, stage."""
    data, model, table = params.data, params.model, params.latency.table
    places = []
    if data.path and data.name in ("imagefolder", "voc", "coco"):
        places.append(("data.path", data.path, "data/raw", "prepare"))
    code, _, function = model.name.rpartition(":")
    if function and code and code != "torchvision":
        places.append(("model.name", code, "networks", "pretrain"))
    if model.checkpoint:
        places.append(("model.checkpoint", model.checkpoint, "networks", "pretrain"))
    if table not in ("none", "measure"):
        places.append(("latency.table", table, "data/latency", "latency"))
    for key, place, watched, stage in places:
        if unseen(Path(place), Path(watched)):
            yield key, place, watched, stage


def unseen(place: Path, watched: Path) -> bool:
    """Whether changes of a file or folder escape DVC, which does not follow linked folders.

    Links are looked for down to the folders of classes, two below a data set's.
    """
    inside = watched.resolve()
    folders = [place, *place.glob("*/"), *place.glob("*/*/")] if place.is_dir() else [place.parent]
    return not all(folder.resolve().is_relative_to(inside) for folder in folders)


if __name__ == "__main__":
    try:
        main()
    except SeerNetError as error:
        sys.exit(f"error: {error}")
