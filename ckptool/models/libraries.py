"""Models of libraries: ``torchvision:resnet50``, ``timm:vit_base_patch16_224``, ``hf:FOLDER``; nothing downloads."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import PurePath
from types import ModuleType
from typing import Any

from ckptool.core.checkpoint import Note
from ckptool.core.errors import CkptError, UsageError
from ckptool.models.factory import Factory, did_you_mean, require
from ckptool.models.guard import guarded
from ckptool.models.vision import declare_operators, import_torchvision
from ckptool.storage.environment import variable_set
from ckptool.storage.paths import is_file
from ckptool.storage.texts import read_text

_LARGEST_CONFIG = 1 << 24  # bytes
_WEIGHTS = ("weights", "weights_backbone", "pretrained", "pretrained_backbone")


def torchvision_factory(model: str, arguments: Mapping[str, object]) -> Factory:
    """A model by its name in `torchvision.models.list_models()`.

    Raises:
        CkptError: torchvision has no such model, or weights are asked for.
    """
    name = f"torchvision:{model}"
    _refuse_weights(name, arguments)
    torchvision = import_torchvision()
    known = torchvision.models.list_models()
    if model.lower() not in known:
        raise _unknown_model(name, model, known, torchvision, "torchvision:")
    function = torchvision.models.get_model_builder(model)
    takes = inspect.signature(function).parameters
    without = {key: None for key in ("weights", "weights_backbone") if key in takes}
    return Factory(name, function, {**arguments, **without}, _folder(torchvision))


def timm_factory(model: str, arguments: Mapping[str, object]) -> Factory:
    """A model by its name in `timm.list_models()`, with or without the tag of its weights; or ``local-dir:FOLDER``.

    Raises:
        CkptError: timm has no such model, or weights are asked for.
    """
    name = f"timm:{model}"
    _refuse_weights(name, arguments)
    if model.startswith(("hf-hub:", "hf_hub:")):
        raise UsageError(f"{name} would be looked up on a hub, and ckptool does not download", hint="name the model")
    require("torch", name, "'ckptool[torch]'")
    if find_spec("torchvision"):  # timm imports it
        import_torchvision()
    timm = require("timm", name)
    entry = model.partition(".")[0]
    if not model.startswith("local-dir:") and not timm.is_model(entry):
        raise _unknown_model(name, model, timm.list_models(), timm, "timm:")

    @functools.wraps(timm.create_model if model.startswith("local-dir:") else timm.model_entrypoint(entry))
    def create(**given: object) -> object:
        with _offline():
            return timm.create_model(model, pretrained=False, **given)

    return Factory(name, create, arguments, _folder(timm))


def hf_factory(folder: str, arguments: Mapping[str, object]) -> Factory:
    """A model of transformers from the config.json of a folder; the arguments go into the config.

    Raises:
        CkptError: there is no config, transformers does not know its model, or that needs code from the folder.
    """
    name = f"hf:{folder}"
    path = PurePath(folder)
    if path.name == "config.json":
        path = path.parent
    if not is_file(path / "config.json"):
        raise UsageError(
            f"{folder} is not a folder with a config.json, and ckptool does not download",
            hint="download the model first, then give its folder",
            path=path,
        )
    read_text(path / "config.json", _LARGEST_CONFIG)  # transformers reads it again, but it is an input
    require("torch", name, "'ckptool[torch]'")
    declare_operators()
    with _offline():
        transformers = require("transformers", name)
        with guarded():
            config, unused = _config(transformers, path, name, arguments)
    if unused:
        first = next(iter(unused))
        raise UsageError(f"the config of {name} has no {first}", hint=did_you_mean(first, vars(config)) or None)
    function, notes = _class_of(transformers, config, name)
    return Factory(name, function, {}, _folder(transformers), notes=notes)


def _config(
    transformers: Any, path: PurePath, name: str, arguments: Mapping[str, object]
) -> tuple[Any, dict[str, object]]:
    try:
        config, unused = transformers.AutoConfig.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False, return_unused_kwargs=True, **arguments
        )
    except Exception as error:  # a config may make transformers raise anything
        raise CkptError(
            f"transformers {transformers.__version__} cannot use {path / 'config.json'}: {first_sentence(error)}",
            hint="ckptool runs no code from the folder; for such a model name its class: package.module:Class",
            path=path / "config.json",
        ) from error
    return config, {key: value for key, value in unused.items() if key in arguments}


def first_sentence(error: BaseException) -> str:
    """The first line of what an exception says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _class_of(transformers: Any, config: Any, name: str) -> tuple[Callable[[], object], tuple[Note, ...]]:
    """What builds the model: the class that the config names, else transformers' base model for such a config."""
    named = list(getattr(config, "architectures", None) or ())
    known = [
        architecture for architecture in named if hasattr(getattr(transformers, architecture, None), "_from_config")
    ]
    notes: tuple[Note, ...] = ()
    if not known:
        why = f"names {named[0]}, which transformers does not have" if named else "names no class"
        text = f"its config {why}: built as transformers' base model for {config.model_type}"
        notes = (Note(text, "name its class, package.module:Class, to have its head as well"),)

    def create() -> object:
        own = copy.deepcopy(config)  # building writes into it
        with _offline():
            if known:
                return getattr(transformers, known[0])._from_config(own)
            return transformers.AutoModel.from_config(own, trust_remote_code=False)

    return create, notes


@contextmanager
def _offline() -> Iterator[None]:
    """No look-ups on a hub, by any thread, meanwhile."""
    constants: Any = import_module("huggingface_hub.constants") if find_spec("huggingface_hub") else None
    was = constants and constants.HF_HUB_OFFLINE
    if constants:
        constants.HF_HUB_OFFLINE = True
    try:
        with variable_set("HF_HUB_OFFLINE", "1"):
            yield
    finally:
        if constants:
            constants.HF_HUB_OFFLINE = was


def _refuse_weights(name: str, arguments: Mapping[str, object]) -> None:
    for key in _WEIGHTS:
        if arguments.get(key):
            raise UsageError(f"{key} would make {name} download weights", hint=f"leave {key} out: it is the target")


def _unknown_model(name: str, model: str, known: list[str], library: ModuleType, prefix: str) -> UsageError:
    return UsageError(
        f"{library.__name__} {library.__version__} has no model {model}",
        hint=did_you_mean(model, known, prefix)
        or f"python -c 'import {library.__name__} as m; print(m.list_models())'",
    )


def _folder(library: ModuleType) -> PurePath | None:
    return PurePath(library.__file__).parent if library.__file__ else None
