"""Importing torchvision: also where its compiled operators do not fit torch, and without what no model needs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder
from importlib.util import find_spec
from types import ModuleType

from ckptool.models.factory import require

_schemas: list[object] = []  # declared as long as they live


def import_torchvision() -> ModuleType:
    """torchvision, also where its compiled operators do not load.

    Raises:
        CkptError: it is not installed.

    Example:
        >>> len(import_torchvision().models.resnet18().state_dict())
        122
    """
    require("torch", "a model", "'ckptool[torch]'")
    declare_operators()
    with _dynamo_later():
        return require("torchvision", "a model of torchvision")


def declare_operators() -> None:
    """Lets ``import torchvision`` work where its compiled library does not fit torch, whoever imports it.

    torchvision's usual wheel is linked against CUDA. Beside a CPU build of torch its import ends in "operator
    torchvision::nms does not exist", for it registers fake kernels for two operators that its library should have
    declared. The models are Python: declaring the schemas is enough. Nothing is done where the library loads.
    """
    import torch

    if "torchvision" in sys.modules or hasattr(torch.ops.torchvision, "nms"):
        return
    found = find_spec("torchvision")
    if found is None or not found.submodule_search_locations:
        return
    finder = FileFinder(found.submodule_search_locations[0], (ExtensionFileLoader, EXTENSION_SUFFIXES))
    library = finder.find_spec("_C")
    if library is not None and library.origin and _loads(library.origin):
        return
    schemas = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        schemas.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    _schemas.append(schemas)


def _loads(library: str) -> bool:
    import torch

    try:
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    except (ImportError, OSError):
        return False
    return True


class _Later(ModuleType):
    """Stands in for a module; the first thing that is asked of it puts the real one in its place."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        _end_stand_ins()
        return getattr(import_module(self.__name__), name)


_DYNAMO, _UTILS = "torch._dynamo", "torch._dynamo.utils"


@contextmanager
def _dynamo_later() -> Iterator[None]:
    """Spares `torch._dynamo`, the compiler, which takes most of the time that importing torchvision takes.

    Its RoI align asks one question of it, when it runs, and imports all of it for that: the question is handed on when
    it is asked. Anything else that is asked meanwhile imports the compiler as usual.
    """
    if any(name in sys.modules for name in (_DYNAMO, _UTILS, "torchvision")):
        yield
        return
    utils = _Later(_UTILS)
    utils.is_compile_supported = _handed_on("is_compile_supported")  # type: ignore[attr-defined]
    sys.modules.update({_DYNAMO: _Later(_DYNAMO), _UTILS: utils})
    try:
        yield
    finally:
        _end_stand_ins()


def _end_stand_ins() -> None:
    for name in (_DYNAMO, _UTILS):
        if isinstance(sys.modules.get(name), _Later):
            del sys.modules[name]


def _handed_on(name: str) -> Callable[..., object]:
    def ask(*arguments: object) -> object:
        _end_stand_ins()
        answer: Callable[..., object] = getattr(import_module(_UTILS), name)
        return answer(*arguments)

    return ask
