"""What documents tell people to type exists, links lead somewhere, parameters are listed."""

import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "networks/*.md")
    for path in ROOT.glob(pattern)
)


def links(document: Path) -> Iterator[str]:
    """Targets of Markdown links to files, with their anchors."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"https?:", target):
            yield target


def anchors(document: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def is_dead(document: Path, link: str) -> bool:
    """Whether a link names no file, or no heading of it."""
    name, _, anchor = link.partition("#")
    target = document.parent / name if name else document
    return not target.exists() or bool(anchor and anchor not in anchors(target))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(document):
    assert [link for link in links(document) if is_dead(document, link)] == []


def test_dead_links_are_seen():
    assert is_dead(ROOT / "README.md", "docs/none.md")
    assert is_dead(ROOT / "README.md", "docs/method.md#none")
    assert not is_dead(ROOT / "README.md", "docs/method.md#the-method")
    assert "docs/method.md" in set(links(ROOT / "README.md"))


def test_readme_commands_are_makefile_targets():
    readme = ROOT / "README.md"
    # In code only: after a back-tick, or at the start of a line of a code block.
    told = set(re.findall(r"(?:^|`)(?:\$ )?make ([a-z][a-z-]*)", readme.read_text(), re.M))
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))
    assert {"repro", "test"} <= told
    assert told - targets == set()


def test_parameters_are_listed_as_the_schema_has_them():
    page = runpy.run_path(str(ROOT / "docs" / "parameters.py"))["page"]()
    written = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")
    assert written == page, "`make docs` writes docs/parameters.md anew"
    assert "| `kappa` | number at least 0 | `2` |" in page
