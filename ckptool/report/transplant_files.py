"""What goes on with a transplanted model: the list of parameters to freeze, and the lines of torch that load it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath

from ckptool.commands.transplant.result import Transplant
from ckptool.engine.encode import writer_named
from ckptool.formats.writer import unknown_loading
from ckptool.report.escape import terminal

_WHOLE = 1 << 62  # names are not shortened here: two of them must not become one
_FEW = 8


def freeze_list(transplant: Transplant, source: str) -> Iterator[str]:
    """Names of parameters, one a line, and behind a comment the modules whose statistics have to be kept, too."""
    named = "that its recipe freezes" if transplant.asked.recipe.freeze else f"loaded in full from {terminal(source)}"
    yield f"# parameters of {terminal(transplant.target.name)} {named}: requires_grad_(False)\n"
    yield from (f"{terminal(key, _WHOLE)}\n" for key in transplant.freeze)
    yield "# BatchNorm modules that need .eval(): frozen weights do not stop their running statistics\n"
    yield from (f"{terminal(name, _WHOLE)}\n" for name in transplant.batchnorms)


def snippet(
    transplant: Transplant, arguments: Mapping[str, object], out: PurePath, container: str | None, wrap: str | None
) -> Iterator[str]:
    """Lines of plain torch that build the model, load the written file and freeze what came from the source."""
    imports, model = _model(transplant.target.name, arguments, transplant.target.modules.get("", ""))
    loading = (writer_named(container).loading if container else unknown_loading)(str(out), wrap)
    modules, single = _frozen_modules(transplant)
    keeps_norms = bool(modules and transplant.batchnorms)
    imports = ["import torch", *["import functools"] * keeps_norms, *imports, *loading.imports]
    yield from sorted({f"{line}\n" for line in imports}, key=_import_order)
    yield f"\nmodel = {model}\n"
    strict = ", strict=False" if transplant.asked.only_loaded else ""
    yield f"model.load_state_dict({loading.state}{strict})\n"
    if modules:
        yield f"frozen = [model.get_submodule(name) for name in {_names(modules)}]\n"
        yield "for module in frozen:\n    module.requires_grad_(False)\n"
    if single:
        yield f"for name in {_names(single)}:\n    model.get_parameter(name).requires_grad_(False)\n"
    if keeps_norms:
        yield "# frozen norms keep their running statistics: they stay in eval, through model.train() too\n"
        yield "def stay_in_eval(norm, mode=True):\n    return norm\n\n"
        yield "for norm in (layer for module in frozen for layer in module.modules()):\n"
        yield "    if isinstance(norm, torch.nn.modules.batchnorm._BatchNorm):\n        norm.eval()\n"
        yield "        norm.train = functools.partial(stay_in_eval, norm)\n"


def _import_order(line: str) -> tuple[bool, str]:
    return line.startswith("from "), line


def _model(name: str, arguments: Mapping[str, object], kind: str) -> tuple[list[str], str]:
    """The imports, and the expression that builds the model, whose class is `kind`."""
    given = "".join(f", {key}={value!r}" for key, value in arguments.items())
    place, _, attribute = name.rpartition(":")
    prefix, _, rest = name.partition(":")
    if prefix == "torchvision":
        return ["import torchvision"], f"torchvision.models.get_model({rest!r}, weights=None{given})"
    if prefix == "timm":
        return ["import timm"], f"timm.create_model({rest!r}, pretrained=False{given})"
    if prefix == "hf":
        config = f"transformers.AutoConfig.from_pretrained({rest!r}{given})"
        return ["import transformers"], f"transformers.{kind.rpartition('.')[2]}({config})"
    if not place:
        return [], "...  # your model"
    module = PurePath(place).stem if place.endswith(".py") else place
    top, _, more = attribute.partition(".")
    call = f"{top}.{more}" if more else top
    return [f"from {module} import {top}"], f"{call}({given.removeprefix(', ')})"


def _frozen_modules(transplant: Transplant) -> tuple[list[str], list[str]]:
    """The largest modules all of whose parameters are frozen, and the parameters that are frozen beside them."""
    frozen = set(transplant.freeze)
    parameters = [entry.key for entry in transplant.entries if entry.kind != "buffer"]
    mixed = {prefix for key in parameters if key not in frozen for prefix in _modules_around(key)}
    modules: dict[str, None] = {}
    single: list[str] = []
    for key in transplant.freeze:
        whole = next((prefix for prefix in _modules_around(key) if prefix not in mixed), None)
        if whole is None:
            single.append(key)
        else:
            modules[whole] = None
    return list(modules), single


def _modules_around(key: str) -> list[str]:
    """Outermost first."""
    parts = key.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _names(names: Sequence[str]) -> str:
    return repr(list(names))
