"""The user's own model: ``path/net.py:Net`` or ``package.module:factory``. Importing it runs its code."""

from __future__ import annotations

import ast
import functools
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module, invalidate_caches
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import PurePath
from types import ModuleType

from ckptool.core.checkpoint import Note
from ckptool.core.errors import CkptError, UsageError
from ckptool.models.annotations import annotations_of
from ckptool.models.factory import Factory, a_type_of, did_you_mean, require, stopped
from ckptool.models.guard import guarded
from ckptool.models.vision import declare_operators, import_torchvision
from ckptool.storage.paths import entry_names, exists, is_file, resolved, working_folder
from ckptool.storage.texts import read_bytes
from ckptool.storage.touched import note_read

_LARGEST = 1 << 26  # bytes of a Python file


def code_factory(name: str, arguments: Mapping[str, object]) -> Factory:
    """What a name like ``net.py:Net`` or ``mypkg.models:make`` stands for: a class, a function, or a model.

    A file is imported as Python would run it: its folder comes first on the import path, then the working folder. A
    file inside a package is imported as a part of it, so its relative imports work.

    Raises:
        CkptError: the file or module does not exist, stops while it is imported, or has no such name.
    """
    where, _, attribute = name.rpartition(":")
    if not all(part.isidentifier() for part in attribute.split(".")):
        raise UsageError(f"{name} names no class or function", hint="write net.py:Net or package.module:function")
    require("torch", name, "'ckptool[torch]'")
    declare_operators()  # its code may import torchvision
    code = _import_file if where.endswith(".py") or "/" in where or "\\" in where else _import_module
    module, places, home = code(where)
    function, note = _builder(_attribute(module, attribute, where), name, arguments)
    return Factory(name, function, arguments, home, places, (Note(f"imports {where}: its code runs", note),))


def names_in(path: PurePath) -> list[str]:
    """The classes and functions at the top of a Python file, public ones, read without running it."""
    try:
        tree = ast.parse(read_bytes(path, _LARGEST, "Python file"))
    except (SyntaxError, ValueError, CkptError):
        return []
    kinds = (ast.ClassDef, ast.FunctionDef)
    return [node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]


def _builder(found: object, name: str, arguments: Mapping[str, object]) -> tuple[Callable[..., object], str]:
    """What is called for the model, and what to say about it."""
    import torch

    if isinstance(found, torch.nn.Module):
        if arguments:
            raise UsageError(f"{name} is a model already built: it takes no arguments", hint="name its class")
        return lambda: found, "it holds a model already built, so a seed does not change its init"
    if not callable(found):
        raise UsageError(f"{name} is {a_type_of(found)}: it builds no model", hint="name a class or function")
    if why := _builds_no_model(found):
        raise UsageError(
            f"{name} {why}: it is not called", hint="name a torch.nn.Module or a function that returns one"
        )
    return found, ""


def _builds_no_model(found: Callable[..., object]) -> str:
    """Why a class or function cannot give a model; "" if it can."""
    import torch

    if isinstance(found, type):
        return "" if issubclass(found, torch.nn.Module) else "is a class, but no torch.nn.Module"
    plain = inspect.unwrap(found.func if isinstance(found, functools.partial) else found)
    if inspect.isbuiltin(plain):
        return "is a built-in function"
    if (getattr(plain, "__module__", None) or "").partition(".")[0] in sys.stdlib_module_names - {"__main__"}:
        return "is a function of Python's standard library"
    returns = annotations_of(plain).get("return", torch.nn.Module)
    if isinstance(returns, type) and not (issubclass(returns, torch.nn.Module) or issubclass(torch.nn.Module, returns)):
        return f"returns {returns.__name__}"
    return ""


def _import_file(where: str) -> tuple[ModuleType, tuple[str, ...], PurePath]:
    path = resolved(where)
    if not is_file(path):
        near = did_you_mean(path.name, [name for name in entry_names(path.parent) if name.endswith(".py")])
        raise UsageError(f"{where} does not exist", hint=near or "check the spelling", path=where)
    if b"torchvision" in read_bytes(path, _LARGEST, "Python file") and find_spec("torchvision"):
        import_torchvision()  # faster than it would
    root, parts = path.parent, [path.stem]
    while exists(root / "__init__.py"):
        parts.insert(0, root.name)
        root = root.parent
    places = tuple(dict.fromkeys((str(root), str(working_folder()))))
    with _running(where, root, places):
        module = import_module(".".join(parts)) if len(parts) > 1 else _import_alone(path)
    if module.__file__ is None or resolved(module.__file__) != path:
        raise CkptError(
            f"{where} cannot be imported: another {'.'.join(parts)} is in use, {module.__file__}", path=where
        )
    return module, places, root


def _import_alone(path: PurePath) -> ModuleType:
    """A file that is in no package, afresh, under its own name where that is free."""
    name = path.stem
    holder = sys.modules.get(name)
    taken = holder is not None and getattr(holder, "__file__", None) != str(path)
    if taken or name in sys.stdlib_module_names or not name.isidentifier():
        name = f"ckptool_target_{name}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file", hint="name a .py file", path=path)
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_module(where: str) -> tuple[ModuleType, tuple[str, ...], PurePath]:
    places = (str(working_folder()),)
    top = where.partition(".")[0]
    if not all(part.isidentifier() for part in where.split(".")):
        raise UsageError(f"{where} is not the name of a module", hint="write net.py:Net or package.module:function")
    with guarded(places):
        invalidate_caches()
        found = find_spec(top)
    if found is None:
        near = did_you_mean(top, ["torchvision", "timm", "hf"])
        raise UsageError(
            f"there is no module {top}", hint=near or f"run ckptool in the folder that holds {top}, or install it"
        )
    folders = list(found.submodule_search_locations or ())
    home = PurePath(folders[0]) if folders else PurePath(found.origin or "").parent
    try:
        with _running(where, home, places):
            module = import_module(where)
    except CkptError as error:
        missing = error.__cause__.name if isinstance(error.__cause__, ModuleNotFoundError) else None
        if missing is None or not f"{where}.".startswith(f"{missing}."):
            raise
        inside, _, last = missing.rpartition(".")
        names = [info.name for info in pkgutil.iter_modules(getattr(sys.modules.get(inside), "__path__", []))]
        raise UsageError(f"{inside} has no module {last}", hint=did_you_mean(last, names) or None) from None
    return module, places, home


@contextmanager
def _running(where: str, home: PurePath, places: tuple[str, ...]) -> Iterator[None]:
    """A block that imports the user's code: what stops it is said as one error; no bytecode is left beside it."""
    invalidate_caches()
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    before = set(sys.modules)
    try:
        with guarded(places):
            yield
        for name in set(sys.modules).difference(before):  # its own files are inputs
            file = getattr(sys.modules[name], "__file__", None)
            if isinstance(file, str):
                note_read(file)
    except (Exception, SystemExit) as error:
        raise stopped(error, where, "imported", home) from error
    finally:
        sys.dont_write_bytecode = kept


def _attribute(module: ModuleType, attribute: str, where: str) -> object:
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [name for name in dir(found) if not name.startswith("_")]
            own = [name for name in public if getattr(getattr(found, name), "__module__", "") == module.__name__]
            hint = did_you_mean(part, public, f"{where}:") or (f"it has {', '.join(own[:8])}" if own else None)
            raise UsageError(f"{where} has no {part}", hint=hint, path=module.__file__)
        found = getattr(found, part)
    return found
