"""What starting costs, and who may know whom: the dependency rule of the house, read from the sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "ckptool"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# From the street to the cellar: a room may import only rooms behind it in this list.
ORDER = [
    "__main__",
    "cli",
    "api",
    "report",
    "commands",
    "models",
    "matching",
    "recipes",
    "fits",
    "facts",
    "values",
    "engine",
    "encodings",
    "formats",
    "storage",
    "core",
]


def name_of(path: Path) -> str:
    return ".".join(("ckptool", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def room_of(module: str) -> str:
    return [*module.split("."), ""][1]


def import_graph() -> dict[str, set[str]]:
    """Every module and the modules of the package that it imports, anywhere in it and for any purpose."""
    names = {name_of(path) for path in SOURCES}
    graph: dict[str, set[str]] = {}
    for path in SOURCES:
        found: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative imports are not used here"
                full = [f"{node.module}.{alias.name}" for alias in node.names]
                found |= {name if name in names else str(node.module) for name in full}
        graph[name_of(path)] = {name for name in found & names if name != name_of(path)}
    return graph


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(module, whether it is imported when the file is), without those that only a type checker sees."""
    tree = ast.parse(path.read_text(encoding="utf-8"))

    def walk(node: ast.AST, at_top: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield alias.name, at_top
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative imports are not used here"
                for alias in child.names:
                    yield f"{child.module}.{alias.name}", at_top
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from walk(child, at_top and not inside)

    yield from walk(tree, True)


def test_arrows_go_down() -> None:
    """Imports inside functions and those that only a type checker sees count, too."""
    graph = import_graph()
    upward = []
    for module, imported in graph.items():
        room = room_of(module)
        if room:  # the package's root hands out what `api` has
            allowed = {room, *ORDER[ORDER.index(room) + 1 :]}
            upward += [f"{module} -> {name}" for name in imported if room_of(name) not in allowed]
    assert upward == []


def test_no_module_imports_itself_in_a_circle() -> None:
    from graphlib import TopologicalSorter

    order = list(TopologicalSorter(import_graph()).static_order())  # raises CycleError and names the circle
    assert len(order) == len(SOURCES)


def test_every_room_has_a_place_and_says_what_it_is_for() -> None:
    rooms = {room_of(name_of(path)) for path in SOURCES} - {""}
    assert rooms <= set(ORDER)
    for path in sorted(PACKAGE.glob("*/__init__.py")):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path.parent.name} says nothing"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_can_run_a_pickle_or_needs_torch_to_start(path: Path) -> None:
    where = path.relative_to(PACKAGE)
    for name, at_top in imports(path):
        root = name.split(".")[0]
        assert root not in {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}, name
        if root in {"torch", "torchvision"}:
            assert not at_top, f"{name} is imported when {where} is"
        if root == "rich":
            assert where.parts[0] == "cli" or str(where).startswith("report/text"), name
        if root in {"typer", "click"}:
            assert root == "typer" and where.parts[0] == "cli", name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_evaluates_or_loads(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec", "compile", "__import__"}, ast.unparse(node)
        if isinstance(node, ast.Attribute) and node.attr == "load":
            assert ast.unparse(node) not in {"torch.load", "np.load", "numpy.load", "pickle.load"}


def modules_after(*arguments: str, cwd: Path = ROOT) -> set[str]:
    """The modules that a command line has imported when it is done."""
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('\\n'.join(sys.modules), file=sys.stderr))\n"
        f"sys.argv = {['ckptool', *arguments]!r}\n"
        "from ckptool.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def rooms_of(modules: set[str]) -> set[str]:
    """The rooms of the house that were entered."""
    return {name.split(".")[1] for name in modules if name.startswith("ckptool.")} - {"__main__"}


COMMANDS = ("inspect", "diff", "filter", "remap", "merge", "transplant", "check", "topics", "git")
HEAVY = {"torch", "torchvision", "numpy", "ml_dtypes", "safetensors"}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["inspect", "--help"], ["diff", "-h"], ["transplant", "-h"], []]
)
def test_help_starts_light(arguments: list[str]) -> None:
    assert not modules_after(*arguments) & HEAVY


@pytest.mark.parametrize("name", ["resnet18.pth", "resnet18-102.pth", "training.ckpt", "tuned.safetensors", "shards"])
@pytest.mark.parametrize("options", [[], ["--json"], ["--format", "lines"]], ids=["text", "json", "lines"])
def test_inspect_reads_headers_without_numpy(name: str, options: list[str], fixtures: Path) -> None:
    assert not modules_after("inspect", name, *options, cwd=fixtures) & HEAVY


def test_equal_files_are_compared_without_torch(fixtures: Path) -> None:
    assert not modules_after("diff", "resnet18.pth", "shards", cwd=fixtures) & {"torch", "torchvision", "safetensors"}


def test_headers_are_compared_without_numpy(fixtures: Path) -> None:
    assert not modules_after("diff", "--keys-only", "resnet18.pth", "resnet18.pth", cwd=fixtures) & HEAVY


def test_a_command_imports_no_other_command() -> None:
    """Nothing is imported that the command line does not ask for: that is what a start costs."""
    modules = modules_after("--version")
    assert not rooms_of(modules) - {"cli", "core", "report", "storage"}
    assert not modules & {"rich.console", "ckptool.core.checkpoint", *(f"ckptool.cli.{name}" for name in COMMANDS)}


def test_inspect_enters_few_rooms(fixtures: Path) -> None:
    modules = modules_after("inspect", "tuned.safetensors", cwd=fixtures)
    assert rooms_of(modules) == {"cli", "core", "facts", "formats", "report", "storage"}
    unwanted = {"core.plan", "core.reasons", "storage.staging", "formats.torch.zip", "formats.pickle.machine"}
    assert not modules & {"rich.console", *(f"ckptool.{name}" for name in unwanted)}


def test_a_comparison_enters_no_matcher(fixtures: Path) -> None:
    modules = modules_after("diff", "resnet18.pth", "shards", cwd=fixtures)
    assert not modules & {"ckptool.commands.automatic", "ckptool.matching.match", "ckptool.recipes.expand"}


def test_a_filter_enters_no_room_of_matching(fixtures: Path, tmp_path: Path) -> None:
    modules = modules_after("filter", "resnet18.pth", "-o", str(tmp_path / "out.pth"), cwd=fixtures)
    assert not rooms_of(modules) & {"api", "encodings", "fits", "matching", "models"}
    assert not modules & HEAVY


def test_shards_are_filtered_without_what_reads_pickles(fixtures: Path, tmp_path: Path) -> None:
    modules = modules_after("filter", "shards", "-o", str(tmp_path / "out"), cwd=fixtures)
    unwanted = ("formats.pickle.machine", "formats.torch.nodes", "formats.ranks.stand_ins", "commands.diff.result")
    assert not modules & {f"ckptool.{name}" for name in unwanted}
    assert "recipes" not in rooms_of(modules)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_take_at_most_eight_parameters(path: Path) -> None:
    """More than that is a frozen value of options; the functions of commands are what the command line is made of."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and path.parent.name != "cli":
            assert len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]) <= 8, node.name


NETWORK = {"http", "ssl", "_ssl", "socket", "_socket", "obstore", "asyncio"}


@pytest.mark.parametrize(
    "arguments",
    [["inspect", "resnet18.pth"], ["diff", "resnet18.pth", "shards"], ["check", "shards"], ["filter", "shards"]],
)
def test_local_files_are_read_without_the_network(arguments: list[str], fixtures: Path) -> None:
    assert not modules_after(*arguments, cwd=fixtures) & NETWORK
