"""The project keeps its promises: DVC sees all code, nothing unpickles, the lock is complete."""

import ast
import functools
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from ruamel.yaml import YAML

from seernet.config import Params

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
LOCK = ROOT / "requirements.lock"
CODE_FILES = {"notebooks": "*.ipynb", "stages": "*.py", "benchmarks": "*.py", "src": "*.py"}


# --- (a) what a stage imports is what DVC watches ---


def code_of(path: Path) -> str:
    """Python source of a script, or of a notebook's code cells without their magics."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    lines = "\n".join("".join(cell["source"]) for cell in cells).splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below one, except what stands under `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield other
                yield from runtime_nodes(other)
            continue
        yield child
        yield from runtime_nodes(child)


def imported_names(path: Path, source_root: Path) -> Iterator[str]:
    """Dotted names that a file imports anywhere; `from a import b` gives both `a` and `a.b`."""
    package = path.relative_to(source_root).parent.parts if path.is_relative_to(source_root) else ()
    for node in runtime_nodes(ast.parse(code_of(path), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def files_of(name: str, roots: list[Path]) -> Iterator[Path]:
    """Files that importing a dotted name runs: each package's `__init__` on the way, the module."""
    for root in roots:
        folder = root
        for part in name.split("."):
            module, folder = folder / f"{part}.py", folder / part
            if module.is_file():
                yield module
            elif (folder / "__init__.py").is_file():
                yield folder / "__init__.py"


@functools.cache
def imports_of(path: Path, source_root: Path) -> tuple[str, ...]:
    """`imported_names`, each file read once."""
    return tuple(imported_names(path, source_root))


def import_closure(start: list[Path], source_root: Path) -> set[Path]:
    """All files of the project that running some files may import."""
    roots = [source_root, *{path.parent for path in start}]
    found, todo = set(start), list(start)
    while todo:
        for name in imports_of(todo.pop(), source_root):
            new = set(files_of(name, roots)) - found
            found |= new
            todo += new
    return found


def units(files: set[Path], source_root: Path) -> set[str]:
    """What DVC should watch: `src/seernet/<package>` folders and top-level modules.

    `seernet/__init__.py` holds the name and version alone and is left out; its imports count.
    """
    library = source_root / "seernet"
    parts = {path.relative_to(library).parts for path in files if path.is_relative_to(library)}
    return {f"src/seernet/{first}" for first, *_ in parts if first != "__init__.py"}


def stages() -> dict[str, dict]:
    """Stage bodies of `dvc.yaml`; of a `foreach` stage, the body under `do`."""
    document = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    return {name: stage.get("do", stage) for name, stage in document["stages"].items()}


def stage_names() -> list[str]:
    return list(stages()) if (ROOT / "dvc.yaml").is_file() else []


@pytest.mark.parametrize("name", stage_names())
def test_stage_declares_exactly_the_code_that_it_imports(name):
    stage = stages()[name]
    commands = stage["cmd"] if isinstance(stage["cmd"], list) else [stage["cmd"]]
    scripts = {script for command in commands for script in re.findall(r"stages/\w+\.py", command)}
    assert scripts, f"stage {name} runs no stages/*.py"
    declared = {dep.rstrip("/") for dep in stage.get("deps", []) if isinstance(dep, str)}
    assert scripts <= declared, f"stage {name} does not declare its own script"

    notebooks = [path for dep in declared for path in notebooks_at(ROOT / dep)]
    closure = import_closure([ROOT / script for script in scripts] + notebooks, SRC)
    needed = units(closure, SRC)
    watched = {dep for dep in declared if dep.startswith("src/")}
    assert sorted(needed - watched) == [], f"add to the deps of {name} in dvc.yaml"
    assert sorted(watched - needed) == [], f"stage {name} never imports these; remove them"
    helpers = {
        path.relative_to(ROOT).as_posix() for path in closure if path.parent == ROOT / "stages"
    }
    assert sorted(helpers - declared) == [], f"add to the deps of {name} in dvc.yaml"


def notebooks_at(path: Path) -> list[Path]:
    if path.suffix == ".ipynb":
        return [path]
    return sorted(path.glob("*.ipynb")) if path.is_dir() and path.name == "notebooks" else []


def test_closure_follows_every_kind_of_import(tmp_path):
    files = {
        "src/seernet/__init__.py": "",
        "src/seernet/a/__init__.py": "from seernet.a.one import f",
        "src/seernet/a/one.py": "from ..b import two",
        "src/seernet/a/unused.py": "import seernet.never",
        "src/seernet/b/__init__.py": "",
        "src/seernet/b/two.py": "def g():\n    import seernet.lazy",
        "src/seernet/lazy.py": (
            "from typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    import seernet.never\nelse:\n    import seernet.plain"
        ),
        "src/seernet/plain.py": "import os.path",
        "src/seernet/never.py": "",
        "stages/run.py": "from seernet.a import f\nimport common",
        "stages/common.py": "",
    }
    for name, source in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source, encoding="utf-8")

    closure = import_closure([tmp_path / "stages/run.py"], tmp_path / "src")

    assert units(closure, tmp_path / "src") == {
        "src/seernet/a",
        "src/seernet/b",
        "src/seernet/lazy.py",
        "src/seernet/plain.py",
    }
    assert tmp_path / "stages/common.py" in closure


# --- (b) nothing runs code from a data file ---

PICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {
    "eval",
    "exec",
    "torch.save",
    "pandas.read_pickle",
    "pd.read_pickle",
    "yaml.load",
    "yaml.unsafe_load",
}


def unsafe_uses(source: str) -> list[str]:
    """Ways in which Python source could run code out of data: unpickling and evaluating."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in PICKLERS]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PICKLERS:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if name in UNSAFE_CALLS or name.endswith(".to_pickle"):
                found.append(name)
            if name == "torch.load" and options.get("weights_only") != "True":
                found.append("torch.load without weights_only=True")
            if options.get("allow_pickle", "False") != "False":
                found.append(f"{name}(allow_pickle)")
    return found


def test_nothing_outside_tests_unpickles_or_evaluates():
    files = [
        path
        for folder, pattern in CODE_FILES.items()
        for path in (ROOT / folder).rglob(pattern)
        if ".ipynb_checkpoints" not in path.parts
    ]
    assert files
    found = {path.relative_to(ROOT).as_posix(): unsafe_uses(code_of(path)) for path in files}
    assert {path: uses for path, uses in found.items() if uses} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "def f():\n    import dill as d",
        "eval('1')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "frame.to_pickle(path)",
    ],
)
def test_unsafe_use_is_recognized(source):
    assert unsafe_uses(source)


def test_safe_use_is_accepted():
    assert unsafe_uses("model.eval()\ntorch.load(path, weights_only=True)\nnp.load(path)") == []


def test_all_processes_of_ours_are_those_that_end_with_their_parent():
    """A pool of the standard library's leaves its processes behind when its parent is killed."""
    pools = ("ProcessPoolExecutor", "multiprocessing")
    users = {
        path.relative_to(folder).as_posix()
        for folder in (SRC, ROOT / "stages")
        for path in folder.rglob("*.py")
        if any(name in path.read_text(encoding="utf-8") for name in pools)
    }
    assert users == {"seernet/parallel.py"}


# --- (c) the lock ---


def pins() -> dict[str, list[str]]:
    """Locked versions of each package; several where they depend on the Python version."""
    found: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", LOCK.read_text(), re.M):
        found.setdefault(canonicalize_name(name), []).append(version)
    return found


def test_lock_pins_every_requirement_within_its_range():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    (named,) = re.findall(
        r"^EXTRAS := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M
    )
    assert set(optional) - set(named.split()) == {"gs", "azure"}  # remotes that no test reaches
    extras = [optional[name] for name in named.split()]
    wanted = [Requirement(line) for group in (project["dependencies"], *extras) for line in group]
    locked = pins()
    unmet = [
        str(requirement)
        for requirement in wanted
        if not (versions := locked.get(canonicalize_name(requirement.name)))
        or not all(requirement.specifier.contains(Version(version)) for version in versions)
    ]
    assert unmet == [], "run `make lock`"


def test_every_locked_package_has_a_hash():
    blocks = re.split(r"^(?=[A-Za-z0-9])", LOCK.read_text(encoding="utf-8"), flags=re.M)[1:]
    assert len(blocks) > 20
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []


def test_lock_names_no_index_address_or_path():
    text = LOCK.read_text(encoding="utf-8")
    assert re.findall(r"https?:|file:|--(?:extra-)?index|--find-links|\s/\w+|@ ", text) == []


def test_the_page_runs_again_whatever_parameter_it_shows_changes():
    sections = {str(name).partition(".")[0] for name in stages()["report"]["params"]}
    assert sections == set(Params.model_fields)


def test_no_photograph_times_the_layers_again():
    latency = stages()["latency"]
    assert "data/raw" not in latency["deps"] and "data" not in latency["params"]
