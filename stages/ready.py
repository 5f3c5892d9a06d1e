"""Is what DVC reads first whole? `make repro` asks before it starts.

Not a stage. DVC reads `params.yaml` too, but neither knows its schema nor looks where no stage
does; and it refuses a `dvc.lock` that was cut off without a word on what to do.
"""

import sys
from pathlib import Path

import yaml

from seernet.config import load
from seernet.errors import ArtifactError, SeerNetError

LOCK = Path("dvc.lock")


def main() -> None:
    """Read both files.

    Raises:
        ConfigError: If a parameter is wrong.
        ArtifactError: If the lock file is not whole.
    """
    load()
    if LOCK.exists() and not is_whole(LOCK):
        raise ArtifactError(
            f"{LOCK} is cut off, which happens if DVC is killed while it writes it; type `git "
            f"restore {LOCK}` (or remove it, if it was never committed) and run again: what "
            "finished since comes from DVC's cache, and no measurement is lost."
        )


def is_whole(lock: Path) -> bool:
    """Whether a lock file holds stages."""
    try:
        document = yaml.safe_load(lock.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return False
    return isinstance(document, dict) and isinstance(document.get("stages"), dict)


if __name__ == "__main__":
    try:
        main()
    except SeerNetError as error:
        sys.exit(f"error: {error}")
