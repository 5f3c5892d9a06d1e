"""A parameters file to change, and a way to read what came of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from seernet.config import Params, load


@pytest.fixture(scope="session")
def params_text() -> str:
    """A complete parameters file; the repository's own may change without these tests."""
    return Path(__file__).with_name("params.yaml").read_text(encoding="utf-8")


@pytest.fixture
def load_text(tmp_path: Path) -> Callable[[str | bytes], Params]:
    """Load parameters from text, or from raw bytes."""

    def load_from(content: str | bytes) -> Params:
        path = tmp_path / "params.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return load(path)

    return load_from
