"""A parameters file to change, and a way to read what came of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from seernet.config import Params, load

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def params_text() -> str:
    """The repository's own `params.yaml`."""
    return (ROOT / "params.yaml").read_text(encoding="utf-8")


@pytest.fixture
def load_text(tmp_path: Path) -> Callable[[str | bytes], Params]:
    """Load parameters from text, or from raw bytes."""

    def load_from(content: str | bytes) -> Params:
        path = tmp_path / "params.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return load(path)

    return load_from
