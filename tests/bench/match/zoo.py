"""Headers of real models, built on the meta device: what `fuzz.py` edits and `cross.py` lays against each other."""

from __future__ import annotations

import json
import re
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ckptool.core.spec import TensorSpec
from tests.bench.match.pairs import prepare, specs_of

Specs = dict[str, TensorSpec]

_BLOCKS = 3  # of each list of a transformers model
_SECONDS = 20  # for one model
_PER_MODULE = 2  # of timm, which has a hundred modules
_DEEP = re.compile(r"^(n_layers?|(num|n)_\w*layers|num_blocks|depth|n_head_layers|\w+_layers)$")


def models(folder: Path | None = None, most: int = 1500) -> Iterator[tuple[str, Specs]]:
    """Name and headers of each model with at most so many keys; `folder` keeps what was built once."""
    path = folder / "zoo.json" if folder else None
    if path and path.exists():
        rows = json.loads(path.read_text())
    else:
        rows = {name: _plain(specs) for name, specs in _built()}
        if path:
            path.write_text(json.dumps(rows))
    for name, row in rows.items():
        if 8 <= len(row) <= most:
            yield name, {key: TensorSpec(key, dtype, tuple(shape)) for key, dtype, shape in row}


def _plain(specs: Specs) -> list[Any]:
    return [(key, spec.dtype, spec.shape) for key, spec in specs.items()]


def _built() -> Iterator[tuple[str, Specs]]:
    import torch

    prepare()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _late)
    for name, build in (*_torchvision(), *_timm(), *_transformers()):
        signal.alarm(_SECONDS)
        try:
            with torch.device("meta"):
                specs = specs_of(build().state_dict())
        except Exception:  # what cannot be built from its defaults, or on the meta device, is no example
            continue
        finally:
            signal.alarm(0)
        yield name, specs


def _late(*_: Any) -> None:
    raise TimeoutError


def _torchvision() -> Iterable[tuple[str, Callable[[], Any]]]:
    from torchvision import models as kinds

    for part in (kinds, kinds.segmentation, kinds.detection, kinds.video):
        more = {} if part in (kinds, kinds.video) else {"weights_backbone": None}
        if part is kinds:
            more = {}
        for name in kinds.list_models(module=part):
            if not name.startswith("quantized"):
                yield f"torchvision/{name}", lambda name=name, more=more: kinds.get_model(name, weights=None, **more)


def _timm() -> Iterable[tuple[str, Callable[[], Any]]]:
    import timm

    for module in timm.list_modules():
        names = [name for name in timm.list_models(module=module, pretrained=False) if "giant" not in name]
        step = max(1, len(names) // _PER_MODULE)
        for name in names[::step][:_PER_MODULE]:
            yield f"timm.{module}/{name}", lambda name=name: timm.create_model(name, pretrained=False)


def _transformers() -> Iterable[tuple[str, Callable[[], Any]]]:
    from transformers import AutoModel, AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_MAPPING_NAMES

    for kind in MODEL_MAPPING_NAMES:
        auto = AutoModelForCausalLM if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES else AutoModel

        def build(kind: str = kind, auto: Any = auto) -> Any:
            config = CONFIG_MAPPING[kind]()
            _shallow(config)
            return auto.from_config(config)

        yield f"transformers.{kind}/{kind}", build


def _shallow(config: Any) -> None:
    """A few blocks are as good as forty."""
    for name, value in list(vars(config).items()):
        if isinstance(value, int) and not isinstance(value, bool) and _DEEP.match(name) and value > _BLOCKS:
            setattr(config, name, _BLOCKS)
        elif name in ("layer_types", "mlp_layer_types") and isinstance(value, list):
            setattr(config, name, value[:_BLOCKS])
        elif name in ("num_experts", "num_local_experts", "n_routed_experts") and isinstance(value, int):
            setattr(config, name, min(value, 8))
        elif hasattr(value, "to_dict") and hasattr(value, "model_type"):
            _shallow(value)
