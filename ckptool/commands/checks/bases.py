"""What a policy holds files against: other checkpoints and models, each opened once for all files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from ckptool.core.address import address_of
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.spec import TensorSpec
from ckptool.formats.opening import open_checkpoint
from ckptool.storage.paths import exists, is_file

if TYPE_CHECKING:
    from ckptool.models import Target as Model


@dataclass(frozen=True, slots=True)
class Base:
    """Something that has keys and shapes.

    Attributes:
        name: as the policy calls it.
        specs: its tensors by key.
        model: the model, if it is one; None for a checkpoint.
    """

    name: str
    specs: Mapping[str, TensorSpec]
    model: Model | None = None


class Bases:
    """Opens checkpoints and builds models, and keeps them."""

    def __init__(self) -> None:
        self._checkpoints: dict[PurePath, Checkpoint] = {}
        self._bases: dict[tuple[str, str, PurePath], Base] = {}

    def checkpoint(self, path: PurePath) -> Checkpoint:
        """A checkpoint by its path."""
        if path not in self._checkpoints:
            self._checkpoints[path] = open_checkpoint(path)
        return self._checkpoints[path]

    def named_checkpoint(self, spec: str, folder: PurePath) -> Checkpoint:
        """A checkpoint by its path as seen from a folder, or by its address.

        Raises:
            CkptError: there is none; a model is none.
        """
        return self.checkpoint(place_of(folder, spec))

    def base(self, spec: str, arguments: Mapping[str, Any], folder: PurePath) -> Base:
        """What ``into = spec`` means: a checkpoint where there is one of that path, else a model.

        Args:
            spec: "base.pth", "torchvision:resnet18", "net.py:Net".
            arguments: for building the model.
            folder: what paths are relative to.

        Raises:
            CkptError: there is neither.
        """
        known = (spec, repr(sorted(arguments.items(), key=str)), folder)
        if known not in self._bases:
            self._bases[known] = self._opened(spec, arguments, folder)
        return self._bases[known]

    def code_of(self, spec: str, folder: PurePath) -> str:
        """The file or module that ``into = spec`` would import; "" for a checkpoint or a model of a library."""
        prefix, colon, _ = spec.partition(":")
        if not colon or "\0" in spec or exists(place_of(folder, spec)):
            return ""
        from ckptool.models.opening import LIBRARIES

        return "" if prefix in LIBRARIES else spec.rpartition(":")[0]

    def _opened(self, spec: str, arguments: Mapping[str, Any], folder: PurePath) -> Base:
        if exists(place_of(folder, spec)):
            checkpoint = self.checkpoint(place_of(folder, spec))
            return Base(spec, {key: tensor.spec for key, tensor in checkpoint.items()})
        from ckptool.models import open_target  # a model: this needs torch

        module, colon, name = spec.rpartition(":")
        is_code = bool(colon) and module.endswith(".py") and is_file(folder / module)
        target = open_target(f"{folder / module}:{name}" if is_code else spec, arguments or None)
        return Base(spec, target.specs, target if target.checkpoint is None else None)


def place_of(folder: PurePath, spec: str) -> PurePath:
    """A path as seen from a folder; an address is one from anywhere.

    Example:
        >>> place_of(PurePath("ci"), "a.pth").as_posix(), str(place_of(PurePath("ci"), "hf://org/model"))
        ('ci/a.pth', 'hf://org/model')
    """
    return address_of(spec) or folder / spec
