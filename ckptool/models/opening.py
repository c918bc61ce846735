"""``--into``: the text that names a target, and the target."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from ckptool.core.bytes import HasPath, PathText
from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.counts import listed
from ckptool.core.errors import CkptError, UnreadableError, UsageError
from ckptool.core.facts import FINE, Operation, Use
from ckptool.facts.registry import facts_of
from ckptool.facts.words import note_of
from ckptool.models.code import code_factory, names_in
from ckptool.models.factory import Factory
from ckptool.models.libraries import first_sentence, hf_factory, timm_factory, torchvision_factory
from ckptool.models.target import Target, target_of
from ckptool.storage.paths import exists, is_address, is_file

if TYPE_CHECKING:
    import torch

_NAMES = 12  # of a file's classes and functions that are listed

LIBRARIES: Mapping[str, Callable[[str, Mapping[str, object]], Factory]] = {
    "torchvision": torchvision_factory,
    "timm": timm_factory,
    "hf": hf_factory,
}
"""What builds a model from the name behind a prefix."""


def open_target(spec: str, arguments: Mapping[str, object] | None = None) -> Target:
    """The target that a text names.

    Args:
        spec: ``torchvision:resnet50``, ``timm:vit_base_patch16_224``, ``hf:FOLDER``, ``path/net.py:Net``,
            ``package.module:factory``, or the path of a checkpoint.
        arguments: for the class or function that builds the model (see `parse_model_args`).

    Returns:
        The target. A model is built without data, on the meta device, unless its init needs real tensors. No weights
        are downloaded. What its code prints goes to stderr.

    Raises:
        CkptError: there is no such target, a library is missing, or the model's code stops; the message names its line.

    Example:
        >>> target = open_target("fixtures/resnet18.pth")
        >>> len(target.specs), target.module
        (122, None)
        >>> target = open_target("torch.nn:Linear", {"in_features": 4, "out_features": 2})
        >>> [spec.short for spec in target.specs.values()], target.device
        (['f32[2,4]', 'f32[2]'], 'meta')
    """
    given = dict(arguments or {})
    prefix, colon, name = spec.partition(":")
    if is_address(spec):
        colon = ""  # of a checkpoint
    if colon and prefix in LIBRARIES:
        return _built(LIBRARIES[prefix](name, given))
    path = PurePath(spec)
    if path.suffix == ".py" and is_file(path):
        names = names_in(path)
        raise UsageError(
            f"{spec} is Python code: say what in it is the model",
            hint=listed([f"{spec}:{found}" for found in names], most=_NAMES) or f"{spec}:Class",
            path=path,
        )
    if colon and not exists(path):
        return _built(code_factory(spec, given))
    if given:
        raise UsageError(f"{spec} is taken as a checkpoint, which has no arguments", hint="leave --model-arg out")
    return _of_checkpoint(spec)


def target_from(
    given: PathText | torch.nn.Module | Target | Checkpoint, arguments: Mapping[str, object] | None = None
) -> Target:
    """The target in any form that the Python API takes: a text or path, a live model, a checkpoint, or one itself.

    Args:
        given: what is to become the target.
        arguments: for the model, if a text names one.

    Example:
        >>> import torch
        >>> target_from(torch.nn.Linear(2, 3)).specs["weight"].shape, len(target_from("fixtures/resnet18.pth").specs)
        ((3, 2), 122)
    """
    if isinstance(given, Target):
        return given
    if isinstance(given, Checkpoint):
        return _checkpoint_target(given, str(given.path))
    if isinstance(given, str | HasPath):
        return open_target(given if isinstance(given, str) else given.__fspath__(), arguments)
    return target_of(given)


def _built(factory: Factory) -> Target:
    """The factory's model as a target: on the meta device, or on the CPU if its init refuses that."""
    factory.check_arguments()
    notes = factory.notes
    begun = time.perf_counter()
    try:
        module = factory.build("meta")
    except CkptError as refused:
        module = factory.build("cpu")
        cause = refused.__cause__
        why = f": {first_sentence(cause)}" if cause else ""
        notes = (*notes, Note("built on cpu: its init refuses the meta device", f"harmless{why}"))
    seconds = time.perf_counter() - begun
    target = target_of(module, factory.name)
    if not target.specs:
        raise CkptError(f"{factory.name} has no tensors", hint="name another class or function")
    return replace(
        target,
        seconds=seconds,
        notes=(*notes, *target.notes),
        build=lambda seed: factory.build("cpu", seed),
    )


def _of_checkpoint(spec: str) -> Target:
    from ckptool.formats.opening import open_checkpoint

    try:
        checkpoint = open_checkpoint(spec)
    except UnreadableError as error:
        if spec.replace("_", "").replace("-", "").isalnum() and not exists(spec):
            raise UnreadableError(
                error.message, hint=f"a model is named with its library: torchvision:{spec} or timm:{spec}", path=spec
            ) from None
        raise
    return _checkpoint_target(checkpoint, spec)


def _checkpoint_target(checkpoint: Checkpoint, name: str) -> Target:
    return Target(
        name=name,
        specs={key: tensor.spec for key, tensor in checkpoint.items()},
        kinds={},
        modules={},
        ties=_ties(checkpoint),
        versions=checkpoint.module_versions,
        checkpoint=checkpoint,
        notes=tuple(_notes(checkpoint)),
    )


def _notes(checkpoint: Checkpoint) -> Iterator[Note]:
    """What is wrong with a checkpoint that stands for a model: its tensors are not those of the model, or not all."""
    for fact in facts_of(checkpoint):
        if fact.level == "warning" and fact.answer(Use(Operation.LOAD, fact.keys)) != FINE:
            note = note_of(fact, checkpoint)
            yield replace(note, text=f"{checkpoint.path.name}: {note.text}")


def _ties(checkpoint: Checkpoint) -> tuple[tuple[str, ...], ...]:
    """Keys of equal views of one storage."""
    groups: dict[object, list[str]] = {}
    for key, tensor in checkpoint.items():
        if tensor.storage is not None:
            groups.setdefault((tensor.pieces, tensor.dtype, tensor.shape), []).append(key)
    return tuple(tuple(keys) for keys in groups.values() if len(keys) > 1)
