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

# Each room and the rooms it may import. What is not named here stands at the bottom and is open to all.
ROOMS = {
    "cli": {
        "cli",
        "render",
        "surgery",
        "writing",
        "merging",
        "recipes",
        "matching",
        "compare",
        "checks",
        "models",
        "probing",
        "formats",
    },
    "__init__": {"api", "compare"},
    "api": {"loading", "surgery", "merging", "recipes", "matching", "models", "probing", "compare", "formats"},
    "loading": {"render", "surgery", "writing", "recipes", "models", "formats"},
    "render": {"render", "surgery", "writing", "merging", "recipes", "matching", "compare", "checks", "probing"},
    "checks": {"checks", "surgery", "writing", "recipes", "matching", "compare", "models", "formats"},
    "models": {"models", "formats"},
    "probing": {"probing", "surgery", "writing", "models"},
    "surgery": {"surgery", "writing", "recipes", "fits", "matching", "compare", "models", "formats"},
    "merging": {"merging", "surgery", "writing", "formats"},
    "fits": {"fits"},
    "matching": {"matching", "recipes", "compare", "formats"},
    "recipes": {"recipes", "fits"},
    "compare": {"compare", "matching", "formats"},
    "plan": {"surgery", "writing"},  # Plan.apply runs the engine
    "writing": {"writing", "formats"},
    "formats": {"formats"},
}
BOTTOM = {"checkpoint", "keys", "near_miss", "spec", "errors", "fold", "shapes", "reading", "views", "explain"} | {
    "plan",
    "ops",
    "sizes",
    "collector",
    "signals",
}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


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


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_only_know_the_rooms_below(path: Path) -> None:
    room = room_of(path)
    if room in {"__init__", "__main__"}:
        return
    allowed = ROOMS.get(room, BOTTOM) | BOTTOM
    known = {name.split(".")[1] for name, _ in imports(path) if name.startswith("ckptool.") and name.count(".")}
    assert known - allowed - {"__version__"} <= set(), f"{room} may not know them"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_can_run_a_pickle_or_needs_torch_to_start(path: Path) -> None:
    where = path.relative_to(PACKAGE)
    for name, at_top in imports(path):
        root = name.split(".")[0]
        assert root not in {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}, name
        if root in {"torch", "torchvision"}:
            assert not at_top, f"{name} is imported when {where} is"
        if root == "rich":
            assert where.parts[0] == "cli" or str(where).startswith("render/text"), name
        if root in {"typer", "click"}:
            assert root == "typer" and where.parts[0] == "cli", name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_evaluates_or_loads(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec", "compile", "__import__"}, ast.unparse(node)
        if isinstance(node, ast.Attribute) and node.attr == "load":
            assert ast.unparse(node) not in {"torch.load", "np.load", "numpy.load", "pickle.load"}


def test_every_room_is_named_in_the_rule() -> None:
    rooms = {room_of(path) for path in SOURCES}
    assert rooms - {"__init__", "__main__"} <= ROOMS.keys() | BOTTOM


def modules_after(*arguments: str, cwd: Path = ROOT) -> set[str]:
    """The top-level modules that a command line has imported when it is done."""
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('\\n'.join({name.split('.')[0] for name in sys.modules}), file=sys.stderr))\n"
        f"sys.argv = {['ckptool', *arguments]!r}\n"
        "from ckptool.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


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
