"""Do the rules that were found reverse? Tried on the keys themselves, of many alike on the first and the last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ckptool.core.checkpoint import Note
from ckptool.core.errors import CkptError, IrreversibleError
from ckptool.core.spec import TensorSpec
from ckptool.matching.result import Confidence, MatchRule, Pair
from ckptool.recipes.recipe import Recipe, parse_recipe
from ckptool.recipes.reverse import check_reverse

Specs = Mapping[str, TensorSpec]

_MOST = 200  # pairs of one rule that are tried; those between them have other numbers and no other names


def dropping(recipe: Recipe) -> Recipe:
    """The recipe, with keys that no rule names left out."""
    return replace(recipe, stages=tuple(replace(stage, unmatched="drop") for stage in recipe.stages))


def reversal_notes(rules: Iterable[MatchRule], source: Specs, target: Specs) -> tuple[Note, ...]:
    """A note where the rules that are taken by default do not reverse."""
    taken = ((rule.text, rule.pairs) for rule in rules if rule.confidence.within(Confidence.ALIGNED))
    why = why_not_reversed(taken, source, target)
    return (Note(f"the rules do not reverse: {why}"),) if why else ()


def why_not_reversed(rules: Iterable[tuple[str, tuple[Pair, ...]]], source: Specs, target: Specs) -> str:
    """What does not come back when rules are reversed; "" if all that they take does.

    Args:
        rules: as text, each with the pairs that it makes; rules that make none (drops) are passed over.
        source: the source's specs.
        target: the target's.

    Example:
        >>> specs = {key: TensorSpec(key, "float32", (4,)) for key in "ab"}
        >>> why_not_reversed([("a -> b", (Pair(("b",), ("a",)),))], specs, specs)
        ''
        >>> why_not_reversed([("a -> b | (_ + o) -> o", (Pair(("b",), ("a",)),))], {"a": specs["a"]}, specs)
        'rule 1 "a -> b | (_ + o) -> o": the layout "(_ + o) -> o" throws _ away'
    """
    taken: dict[str, TensorSpec] = {}
    made: dict[str, TensorSpec] = {}
    texts = []
    for text, pairs in rules:
        if not pairs:
            continue
        texts.append(text)
        for pair in pairs if len(pairs) <= _MOST else (*pairs[: _MOST // 2], *pairs[-_MOST // 2 :]):
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
