"""Factory: code that builds a model; and what it did wrong, said as one error with the line that stopped."""

from __future__ import annotations

import difflib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import PurePath
from types import ModuleType
from typing import TYPE_CHECKING

from ckptool.core.checkpoint import Note
from ckptool.core.errors import CkptError, UsageError
from ckptool.models.annotations import signature_of
from ckptool.models.device import Device, on_device
from ckptool.models.guard import guarded
from ckptool.storage.paths import working_folder

if TYPE_CHECKING:
    import torch

_UNEXPECTED = re.compile(r"^(?:([\w.<>]+)\(\) )?got an unexpected keyword argument '(\w+)'")


@dataclass(frozen=True, slots=True, eq=False)
class Factory:
    """What builds a model.

    Attributes:
        name: of the model, as it was asked for.
        function: called with the arguments.
        arguments: by name.
        home: the folder of the code that the user means; lines outside of it are not his.
        places: folders that imports are looked up in first.
        notes: to be said aloud.
    """

    name: str
    function: Callable[..., object]
    arguments: Mapping[str, object]
    home: PurePath | None = None
    places: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()

    def build(self, device: Device, seed: int = 0) -> torch.nn.Module:
        """The model, on a device.

        Raises:
            CkptError: its code stops, or builds something else.
        """
        import torch

        try:
            with guarded(self.places, seed), on_device(device):
                built = self.function(**self.arguments)
        except (Exception, SystemExit) as error:
            raise self._stopped(error) from error
        if not isinstance(built, torch.nn.Module):
            raise CkptError(
                f"{self.name} gives {a_type_of(built)} where a torch.nn.Module should be",
                hint="name a function that returns the model",
            )
        return built

    def check_arguments(self) -> None:
        """Refuses arguments that its signature cannot take, before any of its code runs.

        Raises:
            UsageError: one is unknown, or missing.
        """
        signature = signature_of(self.function)
        if signature is None:
            return
        takes = [name for name, parameter in signature.parameters.items() if _by_name(parameter)]
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values()):
            for name in self.arguments:
                if name not in takes:
                    raise _unknown_argument(self.name, name, takes)
        wanted = [
            name
            for name, parameter in signature.parameters.items()
            if parameter.default is parameter.empty and parameter.kind not in _VARIADIC and name not in self.arguments
        ]
        if wanted:
            raise UsageError(
                f"{self.name} needs {'an argument' if len(wanted) == 1 else 'arguments'}: {', '.join(wanted)}",
                hint=" ".join(f"--model-arg {name}=..." for name in wanted),
            )

    def _stopped(self, error: BaseException) -> CkptError:
        if isinstance(error, CkptError):
            return error
        match = _UNEXPECTED.match(str(error)) if isinstance(error, TypeError) else None
        if match and match[2] in self.arguments:
            return _unknown_argument(self.name, match[2], self._taken_by(match[1] or ""))
        return stopped(error, self.name, "built", self.home)

    def _taken_by(self, callee: str) -> list[str]:
        """The arguments of a class or function that the factory hands its own on to: "ResNet.__init__"."""
        found: object = getattr(inspect.unwrap(self.function), "__globals__", {}).get(callee.split(".")[0])
        signature = signature_of(found)
        if signature is None:
            return []
        return [name for name, parameter in signature.parameters.items() if _by_name(parameter)]


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _by_name(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)


def _unknown_argument(model: str, name: str, takes: list[str]) -> UsageError:
    listed = f"it takes {', '.join(takes[:12])}{', ...' if len(takes) > 12 else ''}" if takes else ""
    return UsageError(
        f"{model} takes no argument {name}", hint="; ".join(filter(None, [did_you_mean(name, takes), listed])) or None
    )


def a_type_of(value: object) -> str:
    """``an int``, ``a dict``"""
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def did_you_mean(name: str, names: Iterable[str], prefix: str = "") -> str:
    """A question with names that are close, or that contain it; "" if there are none.

    Example:
        >>> did_you_mean("resnet5", ["resnet50", "vgg16"], "torchvision:")
        'did you mean torchvision:resnet50?'
    """
    spelled = {known.casefold(): known for known in names}
    close = difflib.get_close_matches(name.casefold(), spelled, n=3)
    close += sorted(known for known in spelled if name and name.casefold() in known and known not in close)
    return f"did you mean {' or '.join(prefix + spelled[known] for known in close[:3])}?" if close else ""


def stopped(error: BaseException, name: str, when: str, home: PurePath | None) -> CkptError:
    """An exception of a model's code as a statement about that code.

    Args:
        error: what was raised.
        name: the model or the file.
        when: "imported" or "built".
        home: the folder of the user's code.
    """
    place = _place(error, home)
    at = f" at {_shown(place[0])}:{place[1]}" if place else ""
    text = " ".join(traceback.format_exception_only(error)[-1].split())
    hint = None
    if isinstance(error, ModuleNotFoundError) and error.name:
        hint = f"install {error.name.split('.')[0]}, or run ckptool where it can be imported"
    elif isinstance(error, SystemExit):
        hint = 'put what is not meant for import below if __name__ == "__main__":'
    return CkptError(f"{name} stops{at} while it is {when}: {text}", hint=hint, path=place[0] if place else None)


def _place(error: BaseException, home: PurePath | None) -> tuple[PurePath, int] | None:
    """The file and line of the user's code that was running when it stopped: the innermost one."""
    if home is None:
        return None
    lines = [(PurePath(frame.filename), frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        lines.append((PurePath(error.filename), error.lineno or 0))
    installed = "site-packages" in home.parts
    own = [
        (path, line)
        for path, line in lines
        if path.is_relative_to(home) and (installed or "site-packages" not in path.parts)
    ]
    return own[-1] if own else None


def _shown(path: PurePath) -> str:
    """A path as seen from where we are, if it is below."""
    try:
        return str(path.relative_to(working_folder()))
    except (ValueError, OSError):
        return str(path)


def require(package: str, name: str, install: str = "") -> ModuleType:
    """Imports a library that a target needs.

    Raises:
        CkptError: it is not installed, or does not import.
    """
    if package in sys.modules:
        return sys.modules[package]
    try:
        if package == "torch":  # the guard needs it
            return import_module(package)
        with guarded():
            return import_module(package)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            raise CkptError(
                f"{name} needs {package}, which is not installed", hint=f"pip install {install or package}"
            ) from None
        raise stopped(error, package, "imported", None) from error
