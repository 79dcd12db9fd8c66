"""The plan of the house, as tests: who may import whom, what is public, what every pass has."""

import ast
import dataclasses
import importlib
import inspect
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import onnxcomp
from onnxcomp import registry
from onnxcomp.passbase import Pass

ROOT = Path(__file__).parent.parent
PASSES = "onnxcomp.passes"

# Floor of each room; a module imports from its own floor or below
FLOORS = {
    **dict.fromkeys(("errors", "customops", "usercode", "metrics", "clustering", "coding", "thresholds"), 1),
    **dict.fromkeys(
        ("target", "claims", "costs", "facts", "files", "model", "protos", "runtime", "storage", "data"), 2
    ),
    **dict.fromkeys(("statistics", "passbase"), 3),
    "passes": 4,
    **dict.fromkeys(("registry", "recipe", "pipeline", "measure"), 5),
    "search": 6,
    **dict.fromkeys(("report", "api", "onnxcomp"), 7),
    **dict.fromkeys(("cli", "__main__"), 8),
}
# Packages that a floor may import beside those of the floors below
THIRD_PARTY = {
    1: {"numpy", "scipy", "sklearn", "threadpoolctl", "numba"},
    2: {"onnx", "onnx_ir", "onnxscript", "google"},  # google.protobuf: what onnx's messages raise
    5: {"tomli_w"},
    6: {"cloudpickle", "joblib", "distributed", "ray"},
    7: {"zstandard"},
    8: {"typer", "rich"},
}
# Packages that these modules alone may import; measure.elsewhere runs where the rest of onnxcomp is not
DOORS = {"onnxruntime": {"onnxcomp.runtime", "onnxcomp.measure.elsewhere"}, "PIL": {"onnxcomp.data.images"}}
LONGEST_FILE = 400
# Slow to import: a command that does not run a model must not wait for them
HEAVY = ("onnxruntime", "onnx_ir", "onnx", "onnxscript", "sympy", "scipy", "sklearn", "numba", "torch")


def _modules() -> dict[str, Path]:
    """Every module of the package by name; the passes by the folder that they really are in."""
    found = {}
    for folder, package in (("onnxcomp", "onnxcomp"), ("passes", PASSES)):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            if folder == "onnxcomp" and parts[0] == "passes":
                continue
            found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


MODULES = _modules()


def _imports(module: str, path: Path) -> Iterator[tuple[str, int]]:
    """Yield what a file imports and where, at any depth: inside functions and under TYPE_CHECKING too."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base]).rstrip(".")
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                yield (submodule if submodule in MODULES else base), node.lineno


IMPORTS = {name: sorted(set(_imports(name, path))) for name, path in MODULES.items()}


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def _is_ours(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] == "onnxcomp"


def _where(module: str, line: int) -> str:
    return f"{MODULES[module].relative_to(ROOT)}:{line}"


def _allowed_third_party(floor: int) -> set[str]:
    return {package for level, packages in THIRD_PARTY.items() if level <= floor for package in packages}


def test_every_module_has_a_floor() -> None:
    assert {_room(module) for module in MODULES} <= set(FLOORS)


def test_imports_never_go_up() -> None:
    wrong = [
        f"{_where(module, line)} (floor {FLOORS[_room(module)]}) imports {target} (floor {FLOORS[_room(target)]})"
        for module, imports in IMPORTS.items()
        for target, line in imports
        if _is_ours(target) and FLOORS[_room(target)] > FLOORS[_room(module)]
    ]
    assert not wrong


def test_imported_modules_exist() -> None:
    wrong = [
        f"{_where(module, line)} imports {target}"
        for module, imports in IMPORTS.items()
        for target, line in imports
        if _is_ours(target) and target not in MODULES
    ]
    assert not wrong


def test_there_are_no_import_cycles() -> None:
    graph = {
        module: {target for target, _ in imports if _is_ours(target) and target != module}
        for module, imports in IMPORTS.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as err:
        pytest.fail(f"import cycle: {' <- '.join(err.args[1])}")


def test_passes_are_reached_through_the_registry_only() -> None:
    wrong = [
        f"{_where(module, line)} imports {target}"
        for module, imports in IMPORTS.items()
        for target, line in imports
        if _room(module) != "passes" and f"{target}.".startswith(f"{PASSES}.")
    ]
    assert not wrong


def test_passes_import_siblings_and_cleanup_helpers_only() -> None:
    wrong = []
    for module, imports in IMPORTS.items():
        siblings = (f"{module.rpartition('.')[0]}.", f"{PASSES}.cleanup.")
        wrong += [
            f"{_where(module, line)} imports {target}"
            for target, line in imports
            if _room(module) == "passes" and _room(target) == "passes" and _is_ours(target)
            if not target.startswith(siblings)
        ]
    assert not wrong


def test_third_party_packages_stay_on_their_floors() -> None:
    wrong = []
    for module, imports in IMPORTS.items():
        allowed = _allowed_third_party(FLOORS[_room(module)])
        for target, line in imports:
            package = target.split(".")[0]
            if _is_ours(target) or package in sys.stdlib_module_names or module in DOORS.get(package, ()):
                continue
            if package not in allowed:
                wrong.append(f"{_where(module, line)} imports {package}")
    assert not wrong


def test_packages_of_the_project_file_are_the_tree() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = settings["tool"]["setuptools"]["packages"]
    assert sorted(packages) == sorted(name for name, path in MODULES.items() if path.name == "__init__.py")
    assert packages == sorted(packages)


def test_versions_agree() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["project"]["version"] == onnxcomp.__version__


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("import onnxcomp", id="import"),
        pytest.param("import onnxcomp.cli; sys.argv = ['onnxcomp', '--help']; onnxcomp.cli.main()", id="help"),
        pytest.param(
            "import onnxcomp.cli; sys.argv = ['onnxcomp', 'optimize', '--help']; onnxcomp.cli.main()", id="command help"
        ),
        pytest.param("import onnxcomp.cli; sys.argv = ['onnxcomp', '--version']; onnxcomp.cli.main()", id="version"),
    ],
)
def test_heavy_packages_are_not_imported_before_they_are_needed(statement: str, tmp_path: Path) -> None:
    program = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print('HEAVY', *(set(sys.modules) & set({HEAVY})), file=sys.stderr))\n"
        f"{statement}\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1].split() == ["HEAVY"]


@pytest.mark.parametrize("name", [name for name in onnxcomp.__all__ if name != "__version__"])
def test_public_names_resolve_and_say_what_they_are(name: str) -> None:
    found = getattr(onnxcomp, name)
    assert inspect.getdoc(found)
    assert name in dir(onnxcomp)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = onnxcomp.no_such_name


@pytest.mark.parametrize("module", MODULES)
def test_names_that_a_module_exports_exist(module: str) -> None:
    loaded = importlib.import_module(module)
    assert loaded.__doc__
    exported = getattr(loaded, "__all__", [])
    assert [name for name in exported if not hasattr(loaded, name)] == []


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_every_pass_is_complete(name: str) -> None:
    found: type[Pass[object]] = registry.pass_class(name)
    assert found.name == name
    assert isinstance(found.exact, bool)
    assert isinstance(found.needs, frozenset)
    assert found.__doc__
    module = inspect.getmodule(found)
    assert module is not None
    assert module.__doc__
    assert "Declines" in module.__doc__
    assert dataclasses.is_dataclass(found.Config)
    assert found.Config.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert "__slots__" in vars(found.Config)
    assert found().config == found.Config()


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_every_pass_has_a_test_file(name: str) -> None:
    *_, folder, file = registry.BUILT_IN[name].partition(":")[0].split(".")
    assert (ROOT / "tests" / "passes" / folder / f"test_{file}.py").is_file()


def test_every_pass_in_the_tree_is_registered() -> None:
    registered = set(registry.BUILT_IN.values())
    places: Mapping[str, str] = {
        f"{module}:{node.name}": _where(module, node.lineno)
        for module, path in MODULES.items()
        if _room(module) == "passes"
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).startswith("Pass[") for base in node.bases)
    }
    assert set(places) == registered


def test_files_are_short() -> None:
    files = [*MODULES.values(), *(ROOT / "tools").rglob("*.py")]
    lengths = {path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {path: length for path, length in lengths.items() if length > LONGEST_FILE} == {}
