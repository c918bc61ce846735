"""Do rules that were found reverse? Tried on the keys themselves, of many alike on the first and the last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ckptool.core.errors import CkptError, IrreversibleError
from ckptool.core.spec import TensorSpec
from ckptool.recipes.induce.lines import Ruled
from ckptool.recipes.induce.proof import dropping
from ckptool.recipes.recipe import parse_recipe
from ckptool.recipes.reverse import check_reverse

Specs = Mapping[str, TensorSpec]

_MOST = 200  # pairs of one rule that are tried; those between them have other numbers and no other names


def why_not_reversed(rules: Iterable[Ruled], source: Specs, target: Specs) -> str:
    """What does not come back when rules are reversed; "" if all that they take does.

    Args:
        rules: those that make nothing (drops) are passed over.
        source: the source's specs.
        target: the target's.

    Example:
        >>> specs = {key: TensorSpec(key, "float32", (4,)) for key in "ab"}
        >>> class Pair:
        ...     sources, targets, layout = ("a",), ("b",), ""
        >>> why_not_reversed([Ruled("a -> b", (Pair(),))], specs, specs)
        ''
        >>> why_not_reversed([Ruled("a -> b | (_ + o) -> o", (Pair(),))], {"a": specs["a"]}, specs)
        'rule 1 "a -> b | (_ + o) -> o": the layout "(_ + o) -> o" throws _ away'
    """
    taken: dict[str, TensorSpec] = {}
    made: dict[str, TensorSpec] = {}
    texts = []
    for rule in rules:
        if not rule.said:
            continue
        texts.append(rule.text)
        for pair in rule.said if len(rule.said) <= _MOST else (*rule.said[: _MOST // 2], *rule.said[-_MOST // 2 :]):
            taken |= {key: source[key] for key in pair.sources}
            made |= {key: target[key] for key in pair.targets}
    if not texts:
        return ""
    try:
        trip = check_reverse(dropping(parse_recipe(texts)), taken, targets=made)
    except IrreversibleError as error:
        return error.rules
    except CkptError as error:
        return error.message
    if trip.problems:
        return trip.problems[0]
    for keys, what in (
        (trip.lost, "does not come back"),
        (trip.changed, "comes back changed"),
        (trip.added, "would be new"),
    ):
        if keys:
            return f"{keys[0]} {what}"
    return ""
