"""Recipes are written for bare names: prefixes that a wrapper or a larger model puts before them are seen through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from ckptool.core.checkpoint import Note
from ckptool.core.keys import wrapper_prefix
from ckptool.core.reasons import RuleName
from ckptool.core.spec import TensorSpec
from ckptool.matching.prefixes import Swap, prefix_swap
from ckptool.recipes.expand import Expansion
from ckptool.recipes.recipe import Recipe
from ckptool.recipes.rules import Stage, parse_rule

_DEEPEST = 4
Specs = Mapping[str, TensorSpec]


def with_prefixes(
    rules: Recipe, specs: Specs, targets: Specs, expanded: Callable[[Recipe], Expansion]
) -> tuple[Recipe, tuple[Note, ...]]:
    """The recipe behind prefixes that are taken off the source's keys and put before what it makes, and what to say.

    Prefixes are inferred only where the target gets more tensors with them than without.

    Args:
        rules: the recipe as it was given.
        specs: the source.
        targets: the model.
        expanded: what a recipe makes of the source.
    """
    plain = expanded(rules)
    best, most = Swap(), meeting(plain, targets)
    if not plain.problems and most == len(plain.steps):
        return rules, ()
    for take in ("", *_outer_modules(specs)):
        made = expanded(_behind(rules, Swap(take)))
        shapes = {step.target.key: step.target.shape for step in made.steps}
        put = prefix_swap(shapes, {key: spec.shape for key, spec in targets.items()})
        swap = Swap(take, put.put if not put.take else "")
        again = expanded(_behind(rules, swap)) if swap.put else made
        found = meeting(again, targets)
        if swap and found > most and len(again.problems) <= len(plain.problems):
            best, most = swap, found
    return _behind(rules, best), tuple(_notes(best))


def meeting(made: Expansion, targets: Specs) -> int:
    """How many tensors of the target a recipe makes, by key and shape."""
    return sum(
        step.target.key in targets and targets[step.target.key].shape == step.target.shape for step in made.steps
    )


def _behind(rules: Recipe, swap: Swap) -> Recipe:
    """The recipe with a stage before it that takes a prefix off, and one behind it that puts another before."""
    name = RuleName("prefix")
    before = [Stage((parse_rule(f"{swap.take} ->", name),))] if swap.take else []
    behind = [Stage((parse_rule(f"{{k**}} -> {swap.put}{{k**}}", name),))] if swap.put else []
    return replace(rules, stages=(*before, *rules.stages, *behind))


def _notes(swap: Swap) -> Iterable[Note]:
    if swap.take:
        yield Note(f'rules apply under "{swap.take}"', f'as a rule before them: -r "{swap.take} ->" -r "---"')
    if swap.put:
        yield Note(f'results are put under "{swap.put}"', f'as a rule behind them: -r "---" -r "{swap.rule}"')


def _outer_modules(keys: Iterable[str]) -> list[str]:
    """Prefixes that more than half of the keys have, the shortest first.

    Example:
        >>> _outer_modules(["module.net.a.w", "module.net.b.w", "module.head"])
        ['module.', 'module.net.']
    """
    inside = [key.split(".") for key in keys]
    found = dict.fromkeys([wrapper_prefix(".".join(parts) for parts in inside)] if inside else [])
    place = ""
    for depth in range(_DEEPEST):
        names = Counter(parts[depth] for parts in inside if len(parts) > depth + 1)
        name, count = names.most_common(1)[0] if names else ("", 0)
        if count * 2 <= len(inside):
            break
        place += f"{name}."
        found[place] = None
        inside = [parts for parts in inside if len(parts) > depth + 1 and parts[depth] == name]
    return [prefix for prefix in found if prefix]
