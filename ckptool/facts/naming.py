"""Remarks on keys: what wrote them, and what stands in the way of loading them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from ckptool.core.checkpoint import Note
from ckptool.core.keys import WRAPPERS, common_prefix, escape, strip_wrappers, wrapper_prefix
from ckptool.core.shapes import braces
from ckptool.core.shell import shell_quote
from ckptool.facts.facts import Facts, below, many

_COUNTER = "num_batches_tracked"

_MADE_BY = {
    "module.": "DataParallel or DistributedDataParallel",
    "_orig_mod.": "torch.compile",
    "_fsdp_wrapped_module.": "FullyShardedDataParallel",
    "_fpw_module.": "FullyShardedDataParallel",
    "_checkpoint_wrapped_module.": "activation checkpointing",
    "_forward_module.": "Lightning Fabric",
}


def counters(facts: Facts) -> Iterator[Note]:
    """BatchNorm without num_batches_tracked: harmless, unless the module versions promise it."""
    counted = set(facts.modules.get(_COUNTER, ()))
    absent = [module for module in facts.with_all("running_mean", "running_var") if module not in counted]
    if not absent:
        return
    promised = promised_counters(facts.checkpoint.module_versions, absent)
    if promised:
        yield Note(
            f"{many(len(promised), 'BatchNorm counter')} ({_COUNTER}) absent, although the module versions in the file "
            "say that BatchNorm writes them",
            f"a strict load fails with {many(len(promised), 'missing key')}; without module versions torch fills in "
            f"zeros: ckptool filter {facts.file} -o OUT.safetensors",
            below(promised, _COUNTER),
            "warning",
        )
        return
    since = "the file has no module versions" if not facts.checkpoint.module_versions else "its versions allow that"
    yield Note(
        f"BatchNorm counters ({_COUNTER}) are absent: written before torch 0.4.1, or by frozen BatchNorm",
        f"harmless: evaluation does not use them, and a strict load fills in zeros, since {since}",
        below(absent, _COUNTER),
    )


def promised_counters(versions: object, modules: Iterable[str]) -> list[str]:
    """Those BatchNorm modules whose version (2) says that counters were written: torch then insists on them."""
    known = versions if hasattr(versions, "get") else {}
    return [module for module in modules if (known.get(module) or 0) >= 2]


def wrappers(facts: Facts) -> Iterator[Note]:
    """``module.``, ``_orig_mod.`` and the like."""
    prefix = wrapper_prefix(facts.keys)
    if "module." in prefix and "n_averaged" in facts.modules:
        return
    hint = f"remove it: ckptool remap {facts.file} -r strip-wrappers -o PLAIN"
    if prefix:
        marks = dict.fromkeys(_MADE_BY[f"{part}."] for part in prefix.split(".")[:-1])
        yield Note(f'every key starts with "{prefix}", the mark of {" in ".join(marks)}', hint)
    for wrapper in WRAPPERS[1:]:  # a module that is called "module" is nothing special further down
        if wrapper[:-1] not in facts.parts:
            continue
        inside = tuple(key for key in facts.keys if f".{wrapper}" in key[max(len(prefix) - 1, 0) :])
        if inside:
            yield Note(
                f'{many(len(inside), "key")} with "{wrapper}" inside, the mark of {_MADE_BY[wrapper]}', hint, inside
            )


def averaged(facts: Facts) -> Iterator[Note]:
    """torch's AveragedModel, and the moving average that latent diffusion keeps under names without dots."""
    keys = facts.keys
    if "n_averaged" in facts.modules and all(key == "n_averaged" or key.startswith("module.") for key in keys):
        yield Note(
            'it is a moving average, as torch\'s AveragedModel saves it: n_averaged, and the model under "module."',
            f"the model alone: ckptool remap {facts.file} -r 'n_averaged -> !' -r 'module. ->' -o PLAIN",
        )
    if "model_ema" not in facts.parts:
        return
    dotless = tuple(key for key in keys if key.startswith("model_ema.") and key.count(".") == 1)
    if len(dotless) > 2 and any(key.startswith("model.") for key in keys):
        text = (
            f"{many(len(dotless), 'key')} under model_ema are a moving average of those under model, without their dots"
        )
        hint = f"ckptool filter {facts.file} --ema -o OUT takes it; --drop 'model_ema.*' leaves it out"
        yield Note(text, hint, dotless)


def lightning(facts: Facts) -> Iterator[Note]:
    """A Lightning checkpoint: the attribute that holds the network is in every key."""
    names = {extra.name for extra in facts.checkpoint.extras}
    if "pytorch-lightning_version" not in names:
        return
    prefix = common_prefix(strip_wrappers(key) for key in facts.keys).split(".")[0]
    hint = f"the network alone: ckptool remap {facts.file} -r {shell_quote(f'{prefix}. ->')} -o PLAIN" if prefix else ""
    where = f'; every key starts with "{prefix}.", the attribute that holds the network' if prefix else ""
    yield Note(f"it is a Lightning checkpoint{where}", hint)


def adapters(facts: Facts) -> Iterator[Note]:
    """LoRA: low-rank corrections, with or without the weights that they correct."""
    if "lora_A" not in facts.parts:
        return
    found = [key for key in facts.keys if "lora_A" in key.split(".")]
    ranks = sorted({facts.checkpoint[key].shape[0] for key in found if facts.checkpoint[key].shape})
    based = any(".base_layer." in key for key in facts.checkpoint)
    rank = f" of rank {', '.join(map(str, ranks))}" if ranks else ""
    base = "beside the weights they adapt" if based else "without the weights they adapt"
    text = f"LoRA adapters{rank} for {many(len(found), 'layer')}, {base}"
    hint = "alpha and r are in adapter_config.json; merged weight = base + alpha / r * B @ A"
    yield Note(text, hint, tuple(found))


_SCHEMES: tuple[tuple[tuple[str, ...], tuple[str, ...], str], ...] = (
    # (last parts that a module has, last parts that it does not have, what made them)
    (("qweight", "qzeros", "g_idx"), (), "GPTQ"),
    (("qweight", "qzeros", "scales"), ("g_idx",), "AWQ"),
    (("weight_scale_inv", "weight"), (), "float8 in blocks (weight = weight x weight_scale_inv)"),
    (("weight_packed", "weight_scale"), (), "compressed-tensors"),
    (("SCB", "weight"), (), "bitsandbytes in 8 bits"),
    (("absmax", "quant_map"), (), "bitsandbytes in 4 bits"),
    (("weight_scale", "weight"), ("weight_packed",), "float8 or int8 with scales"),
)


def quantized(facts: Facts) -> Iterator[Note]:
    """Weights that are not numbers to compute with."""
    for has, has_not, scheme in _SCHEMES:
        without = {module for last in has_not for module in facts.modules.get(last, ())}
        modules = [module for module in facts.with_all(*has) if module not in without]
        if modules:
            text = f"{many(len(modules), 'layer')} {'is' if len(modules) == 1 else 'are'} quantised: {scheme}"
            yield Note(
                text, "casting or averaging these weights gives nonsense; renaming is safe", below(modules, has[0])
            )


_PAIRS = (
    (("weight_g", "weight_v"), "weight_norm (weight = weight_g * weight_v / norm(weight_v))"),
    (("weight_orig", "weight_mask"), "pruning masks (weight = weight_orig * weight_mask)"),
    (("weight_orig", "weight_u"), "spectral_norm (weight_orig, weight_u)"),
)


def reparametrized(facts: Facts) -> Iterator[Note]:
    """A weight in two parts."""
    for lasts, what in _PAIRS:
        modules = facts.with_all(*lasts)
        if modules:
            text = f"{many(len(modules), 'layer')} with {what}"
            hint = "load into a model with the same, or fuse the two first: see ckptool remap --help"
            yield Note(text, hint, below(modules, lasts[0]))
    modules = [name for name in facts.with_all("original0", "original1") if name.endswith("parametrizations.weight")]
    if modules:
        text = f"{many(len(modules), 'layer')} with weight_norm as a parametrization (original0 = g, original1 = v)"
        yield Note(text, "older code calls them weight_g and weight_v", below(modules, "original0"))


def norm_names(facts: Facts) -> Iterator[Note]:
    """LayerNorm.gamma and LayerNorm.beta, as TensorFlow calls them."""
    modules = [name for name in facts.with_all("gamma", "beta") if "norm" in name.rpartition(".")[2].lower()]
    if modules:
        name = modules[0].rpartition(".")[2]
        text = f"{many(len(modules), 'norm')} with TensorFlow's names gamma and beta for weight and bias"
        pairs = (f".{name}.gamma -> .{name}.weight", f".{name}.beta -> .{name}.bias")
        rules = " ".join(f"-r {shell_quote(pair)}" for pair in pairs)
        yield Note(text, f"rename them: ckptool remap {facts.file} {rules} -o OUT", below(modules, "gamma"))


def dense_names(facts: Facts) -> Iterator[Note]:
    """torchvision's first DenseNet files: norm.1, where today's modules are called norm1."""
    if "denselayer1" not in facts.parts:
        return
    old = tuple(key for key in facts.keys if re.search(r"denselayer\d+\.(?:norm|relu|conv)\.[12]\.", key))
    if old:
        rule = "{m**}.{n=norm|relu|conv}.{i}.{p*} -> {m**}.{n}{i}.{p*}"
        yield Note(
            f"{many(len(old), 'key')} with DenseNet's old names, norm.1 for norm1: written before torch 0.4",
            f"rename them: ckptool remap {facts.file} -r '{rule}' -o OUT",
            old,
        )


def experts(facts: Facts) -> Iterator[Note]:
    """A mixture of experts, one module each."""
    if "experts" not in facts.parts:
        return
    found: dict[str, set[str]] = defaultdict(set)
    for key in facts.keys:
        if ".experts." in key:
            module, _, rest = key.partition(".experts.")
            found[module].add(rest.split(".")[0])
    numbers = Counter(len({name for name in names if name.isdecimal()}) for names in found.values())
    numbers.pop(0, None)
    if numbers:
        listed = ", ".join(f"{many(layers, 'layer')} of {number:,}" for number, layers in numbers.most_common(3))
        yield Note(f"a mixture of experts: {listed}", "")


_LAYERS = re.compile(
    r"(?:^|\.)(?:(?:encoder_|decoder_)?layers?|(?:transformer_)?blocks?|h|resblocks|experts)\.([0-9]{1,4})\."
)


def layer_gaps(facts: Facts) -> Iterator[Note]:
    """A transformer with layers missing, or a part of one."""
    found: Counter[tuple[str, str]] = Counter()
    for key in facts.keys:
        at = 0
        while match := _LAYERS.search(key, at):
            at = match.end(1)
            found[key[: match.start(1) - 1], match[1]] += 1
    inside: dict[str, dict[int, int]] = defaultdict(dict)
    for (module, number), size in found.items():
        inside[module][int(number)] = size
    gaps = {module: missing for module, sizes in inside.items() if (missing := _missing(sizes))}
    for module, missing in list(gaps.items())[:1]:
        more = f" (and {many(len(gaps) - 1, 'more such gap')})" if len(gaps) > 1 else ""
        are = "is" if len(missing) == 1 else "are"
        text = f"{escape(module)}.{braces(list(map(str, missing)))} {are} missing from a numbered sequence{more}"
        yield Note(text, "a shard, a part of a pipeline, or layers were pruned", level="warning")


def _missing(sizes: dict[int, int]) -> list[int]:
    """The absent numbers of a sequence, given the number of keys of each that is there; [] if nothing is odd.

    Transformer layers have many keys and are alike. What is not so is a Sequential, where steps without weights leave
    gaps; counting from 1 is a habit.
    """
    first, last = min(sizes), max(sizes)
    usual, times = Counter(sizes.values()).most_common(1)[0]
    holes = last - first + 1 - len(sizes)
    if len(sizes) < 4 or usual < 3 or times * 3 < len(sizes) * 2 or holes * 5 > len(sizes):
        return []
    return [number for number in range(0 if first > 1 else first, last) if number not in sizes]
