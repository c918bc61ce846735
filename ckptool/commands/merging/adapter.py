"""`adapter_config.json`: what PEFT says of an adapter, and which adapters can be merged.

Source: peft 0.21, tuners/lora/config.py and layer.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from pathlib import PurePath

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import UnreadableError, UsageError
from ckptool.facts.adapters import Adapter
from ckptool.facts.registry import facts_of
from ckptool.storage.paths import is_file, is_folder, size_of
from ckptool.storage.texts import read_bytes

_LARGEST_CONFIG = 1 << 20

# starts from which peft writes another weight into the base model, so that W + B @ A is not the trained model
_BASE_CHANGING = ("pissa", "corda", "olora", "loftq", "lora_ga")

# settings under which the trained model is not W + scaling * B @ A, or not under the base model's names
_UNMERGEABLE = {
    "layer_replication": "repeats layers of the base",
    "trainable_token_indices": "trains single rows of an embedding",
    "use_qalora": "is a QA-LoRA, with pooled inputs",
    "use_bdlora": "is block-diagonal",
    "alora_invocation_tokens": "is an aLoRA, active only after its invocation tokens",
    "arrow_config": "routes between several adapters",
    "monteclora_config": "is a MonteCLoRA, with sampled weights",
    "kasa_config": "is a KaSA, with singular values between its factors",
}


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """What `adapter_config.json` says.

    Attributes:
        r: rank.
        alpha: numerator of the scaling.
        rslora: divide by the root of the rank.
        dora: rows are scaled to magnitudes.
        transposed: the base's weights are [in, out] (`fan_in_fan_out`), where the shapes do not tell.
        ranks: other ranks by module pattern.
        alphas: other alphas by module pattern.
        parameters: ends of names of parameters that are adapted themselves (`target_parameters`).

    Example:
        >>> AdapterConfig(r=8, alpha=16, alphas=(("q_proj", 32.0),)).scaling("layers.0.q_proj", 0.5)
        2.0
    """

    r: int
    alpha: float
    rslora: bool = False
    dora: bool = False
    transposed: bool = False
    ranks: tuple[tuple[str, float], ...] = ()
    alphas: tuple[tuple[str, float], ...] = ()
    parameters: tuple[str, ...] = ()

    def rank(self, module: str) -> int:
        """The rank of one module's factors."""
        return int(_by_pattern(self.ranks, module, self.r))

    def scaling(self, module: str, scale: float) -> float:
        """The factor before B @ A for one module."""
        alpha = _by_pattern(self.alphas, module, self.alpha)
        return scale * alpha / (sqrt(self.rank(module)) if self.rslora else self.rank(module))


def _by_pattern(patterns: Sequence[tuple[str, float]], module: str, default: float) -> float:
    """As peft matches them: a regex at the end of the module's name, on a whole part."""
    for pattern, value in patterns:
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def read_config(adapter: PurePath) -> AdapterConfig:
    """Read the `adapter_config.json` in an adapter's folder, or beside its file.

    Raises:
        UsageError: there is none, or it is of an adapter that cannot be merged.
        UnreadableError: it is not what it should be.
    """
    path = (adapter if is_folder(adapter) else adapter.parent) / "adapter_config.json"
    if not is_file(path):
        where = "in" if is_folder(adapter) else "beside"
        raise UsageError(f"there is no adapter_config.json {where} {adapter}", hint="it says r and alpha", path=path)
    return parsed_config(_read(path), path)


def parsed_config(config: Mapping[str, object], path: PurePath) -> AdapterConfig:
    """What a configuration says; see `read_config`."""
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise UsageError(
            f"the adapter is of kind {kind}; ckptool merges those of kind LORA",
            hint=f"where peft can merge {kind}: merge_and_unload",
            path=path,
        )
    for name, why in _UNMERGEABLE.items():
        if config.get(name):
            raise UsageError(f"the adapter {why} ({name}): that is not a sum of weights", hint=_BY_PEFT, path=path)
    start = str(config.get("init_lora_weights")).lower()
    if start.startswith(_BASE_CHANGING):
        raise UsageError(
            f"the adapter started from {start}, which changes the base's weights", hint=_CONVERT, path=path
        )
    r, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(r, int) or not _is_number(r) or r < 1 or not _is_number(alpha):
        raise UnreadableError(f"{path} gives no rank r and lora_alpha", path=path)
    return AdapterConfig(
        r,
        float(alpha),  # type: ignore[arg-type]
        bool(config.get("use_rslora")),
        bool(config.get("use_dora")),
        bool(config.get("fan_in_fan_out")),
        _patterns(config.get("rank_pattern"), path),
        _patterns(config.get("alpha_pattern"), path),
        _names(config.get("target_parameters"), path),
    )


_BY_PEFT = "merge it with peft (merge_and_unload), or ask its authors for the merged model"
_CONVERT = "save it with peft's path_initial_model_for_weight_conversion, which makes a plain LoRA of it"


def has_config(adapter: PurePath) -> bool:
    """Whether an adapter has its `adapter_config.json` in its folder, or beside its file."""
    return is_file((adapter if is_folder(adapter) else adapter.parent) / "adapter_config.json")


def family_of(adapter: Checkpoint) -> str:
    """Who writes adapters like this one: "PEFT", "kohya", ...; "" for what is no adapter."""
    found = next((fact for fact in facts_of(adapter) if isinstance(fact, Adapter)), None)
    return found.family if found is not None else ""


_OTHERS = {
    "lora_controlnet": (
        "a ControlLoRA: a control network of its own, made of factors and of the base",
        "load it beside the base, as ComfyUI does; there is nothing to merge",
    ),
    "on_input": (
        "an (IA)3 adapter of LyCORIS, which multiplies weights and adds nothing",
        "merge it with LyCORIS (tools/merge.py)",
    ),
    "diff": (
        "an adapter with whole differences of weights (LyCORIS full), not factors",
        "merge it with LyCORIS (tools/merge.py)",
    ),
}
"""Kinds of adapters that keys tell, by their last names: what they are, and what to do."""


def require_peft(adapter: Checkpoint) -> None:
    """Refuses what is no adapter in PEFT's format, with the format's name.

    Raises:
        UsageError: it is in another format, or it is not an adapter.
    """
    found = next((fact for fact in facts_of(adapter) if isinstance(fact, Adapter)), None)
    if found is not None and found.family != "PEFT":
        raise UsageError(
            f"{adapter.path} holds {found.text}; ckptool merges LoRA and LoCon",
            hint=f"{found.way}, or save it with peft (save_pretrained)",
            path=adapter.path,
        )
    for end, (what, way) in _OTHERS.items() if found is None else ():
        key = next((key for key in adapter if key == end or key.endswith(f".{end}")), None)
        if key is not None:
            raise UsageError(f"{adapter.path} is {what}", hint=way, path=adapter.path, key=key)


def _read(path: PurePath) -> Mapping[str, object]:
    if size_of(path) > _LARGEST_CONFIG:
        raise UnreadableError(f"{path} is too long for a configuration", path=path)
    try:
        config = json.loads(read_bytes(path, _LARGEST_CONFIG).decode())
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"{path} is not JSON: {error}", path=path) from None
    if not isinstance(config, dict):
        raise UnreadableError(f"{path} is not the configuration of an adapter", path=path)
    return config


def _names(value: object, path: PurePath) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise UnreadableError(f"{path} has target_parameters that are no list of names", path=path)
    return tuple(value)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def _patterns(value: object, path: PurePath) -> tuple[tuple[str, float], ...]:
    if value in (None, {}):
        return ()
    if not isinstance(value, dict):
        raise UnreadableError(f"{path} has patterns that are not a dict", path=path)
    found: list[tuple[str, float]] = []
    for pattern, number in value.items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise UnreadableError(f'{path}: the pattern "{pattern}" is not a regex: {error}', path=path) from None
        if not _is_number(number) or number <= 0:
            raise UnreadableError(f'{path} gives no number for "{pattern}"', path=path)
        found.append((pattern, float(number)))
    return tuple(found)
