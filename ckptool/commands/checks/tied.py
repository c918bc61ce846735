from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ckptool.commands.checks import Rule
from ckptool.commands.checks.case import Case, Found
from ckptool.commands.checks.settings import At, Key, PolicyReader
from ckptool.engine.reading import Reader
from ckptool.facts.storages import ties


def _groups(reader: PolicyReader, value: Any, at: At) -> tuple[tuple[str, ...], ...]:
    groups = [value] if isinstance(value, list) and value and all(isinstance(key, str) for key in value) else value
    if not isinstance(groups, list) or not all(isinstance(group, list) and len(group) > 1 for group in groups):
        reader.refuse("tied is not a list of groups of keys", at, 'tied = [["lm_head.weight", "embed.weight"]]')
    return tuple(reader.texts(group, at) for group in groups)


TIED: Key[tuple[tuple[str, ...], ...]] = Key("tied", _groups)
RULE = Rule("tied", needs=(TIED,), order=100)


def tied(case: Case) -> Iterator[Found]:
    """Keys that must be one tensor are two.

    Found: for every group of the policy, keys that the file stores apart. Where their values are equal it is a warning
    (the file holds them twice); where they are not, an error. A group of which the file has one key alone is fine: that
    is how safetensors stores tied tensors. A group of which it has none is an error.

    Why: a language model whose head and embedding were tied in training and are not in the file gives other output than
    it was trained for, and its size is wrong.

    What to do: ckptool remap FILE -r RECIPE -o OUT with `tie` in the recipe.

    Policy: it runs where `tied` is set.

        tied = [["lm_head.weight", "model.embed_tokens.weight"]]
    """
    setting = case.settings.get(TIED)
    if setting is None:
        return
    owner = {key: number for number, group in enumerate(ties(case.checkpoint)) for key in group}
    for group in setting.value:
        present = [key for key in group if key in case.checkpoint]
        if not present:
            yield Found(f"none of the tied keys is there: {', '.join(group)}", tuple(group), place=setting.place)
        elif len(present) > 1 and len({owner.get(key, key) for key in present}) > 1:
            yield _apart(case, present)


def _apart(case: Case, keys: Sequence[str]) -> Found:
    """Keys that are not one tensor in the file: are they equal at least?"""
    tensors = [case.checkpoint[key] for key in keys]
    with Reader() as reader:
        is_equal = len({tensor.spec.short for tensor in tensors}) == 1 and len(set(map(reader.sha256, tensors))) == 1
    text = f"{' and '.join(keys[:3])}{', ...' if len(keys) > 3 else ''} are not one tensor"
    return Found(
        f"{text}, although their values are equal" if is_equal else f"{text}, and their values differ",
        tuple(keys),
        tuple(f"{tensor.key}  {tensor.spec.short}" for tensor in tensors),
        "a recipe with tie = [[...]] makes them one",
        case.place("tied"),
        "warning" if is_equal else None,
        "copies" if is_equal else "differ",
    )
