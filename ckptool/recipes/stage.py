"""One stage of a recipe: what its rules make of the tensors, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ckptool.core.errors import CkptError, UsageError
from ckptool.core.plan import Problem, Source, Use, sources_of
from ckptool.core.reasons import ByRules, NotUsed, Reason, Unmatched
from ckptool.recipes.group import Context, Group, Item, groups_of, make, mapped
from ckptool.recipes.items import Items, Rules
from ckptool.recipes.matching import Matches, match_stage, new_names
from ckptool.recipes.rules import Rule, Stage
from ckptool.recipes.template import Span
from ckptool.recipes.unmatched import hint_for

_NEAR_MISSES = 5  # looked for; a recipe for another model has many rules that match nothing
MAX_TENSORS = 50_000  # that one stage makes; and 20 more for each tensor of the inputs
MAX_NAMES = 300_000_000  # characters of all names that one stage makes


@dataclass(slots=True)
class State:
    """What is collected on the way.

    `gone`: why each tensor of the inputs is dropped; None for those that are not. `dropped`: the same of tensors that
    a rule has made something of. `near`: keys like those of a rule that matches nothing are looked for.
    """

    context: Context
    gone: list[Reason | None]
    problems: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    dropped: dict[Source, Reason] = field(default_factory=dict)
    near: bool = True
    near_misses: int = 0
    most: int = MAX_TENSORS
    met: dict[Rules, Rules] = field(default_factory=dict)

    def problem(self, message: str, hint: str | None = None, keys: Iterable[str] = ()) -> None:
        """One problem; the same for several keys is said once."""
        self.problems.setdefault((message, hint or ""), []).extend(keys)

    def found(self) -> tuple[Problem, ...]:
        """All problems."""
        return tuple(Problem(message, hint, tuple(keys)) for (message, hint), keys in self.problems.items())

    def applied(self, before: Rules, rules: Sequence[Rule]) -> Rules:
        """The rules that a tensor has met, each once; one tuple for all tensors that met the same."""
        met = tuple(dict.fromkeys((*before, *(rule.name for rule in rules))))
        return self.met.setdefault(met, met)

    def drop(self, items: Items, position: int, reason: Reason) -> None:
        row = items.rows[position]
        if row >= 0:
            self.gone[row] = self.gone[row] or reason
            return
        for source in sources_of(items.at(position).value):
            self.dropped.setdefault(source, reason)

    def why_dropped(self, row: int, source: Source) -> Reason:
        return self.gone[row] or self.dropped.get(source) or NotUsed()


_Made: TypeAlias = dict[int, list[tuple[str, Item]]]
"""Tensors that rules make, by the position of the first that each is made of."""


def run_stage(stage: Stage, items: Items, state: State) -> Items:
    """The tensors after a stage."""
    matches = match_stage(stage, items.names)
    names, rules = _renamed(stage, items, matches, state)
    made: _Made = {}
    for number, rule in enumerate(stage.rules):
        if rule.is_whole:
            _run_whole(rule, number, matches, items, names, made, state)
        else:
            _note_partial(rule, number, stage, matches, items, names, state)
        if number not in matches.seen and not rule.optional:
            _note_unused(rule, items, state)
    total = sum(map(len, made.values()))
    for position, spans in sorted(matches.touched.items()):
        _touch(position, spans, stage, items, made, state)
        total += len(made.get(position, ()))
        _require_few(total, state)
    gone = bytearray(len(items))
    for owned in matches.owned.values():
        for each in owned:
            gone[each.position] = 1
    for position in matches.touched:
        gone[position] = 1
    for number, positions in matches.dropped.items():
        reason = ByRules((stage.rules[number].name,))
        for position in positions:
            gone[position] = 1
            state.drop(items, position, reason)
    if stage.unmatched != "keep":
        _unmatched(stage, items, matches, gone, state)
    return _collected(_put_together(items.renamed(names, rules), made, gone), state)


def _renamed(stage: Stage, items: Items, matches: Matches, state: State) -> tuple[list[str], list[Rules]]:
    """The names of all tensors when those that only get another one have it, and the rules that each has met."""
    if not matches.renamed:
        return items.names, items.rules
    names, rules = list(items.names), list(items.rules)
    for numbers, renamed in matches.renamed.items():
        applied = [stage.rules[number] for number in numbers]
        after: dict[int, Rules] = {}
        for position, name in zip(renamed.positions, renamed.names, strict=True):
            names[position] = name
            before = rules[position]
            met = after.get(id(before))
            if met is None:
                met = after[id(before)] = state.applied(before, applied)
            rules[position] = met
    return names, rules


def _put_together(items: Items, made: _Made, gone: bytearray) -> Items:
    """The tensors of the next stage, those that rules have made where their first source stood."""
    if not made and 1 not in gone:
        return items
    found = Items.none_of(items.loaded)
    for position, name in enumerate(items.names):
        if not gone[position]:
            row = items.rows[position]
            if row >= 0:
                found.append(name, row, items.rules[position])
            else:
                found.append_item(name, items.at(position))
        for new, item in made.get(position, ()):
            found.append_item(new, item)
    return found


def _run_whole(
    rule: Rule, number: int, matches: Matches, items: Items, names: list[str], made: _Made, state: State
) -> None:
    renamed = matches.renamed.get((number,))
    count = len(renamed.names) if renamed else 0
    first = ""
    for group in groups_of(rule, matches.owned.get(number, [])):
        if not isinstance(group, Group):
            state.problem(f"{rule.name}: {group.message}", group.hint)
            continue
        try:
            tensors = make(rule, group, items, state.context)
        except CkptError as error:
            state.problem(f"{rule.name}: {error.message}", error.hint, group.keys)
        except ValueError as error:
            state.problem(f"{rule.name}: {error}", keys=group.keys)
        else:
            first = first or (tensors[0][0] if tensors else "")
            made.setdefault(group.position, []).extend(tensors)
            count += len(tensors)
            _require_few(count, state)
    tally = matches.tallies.get(number)
    example = None
    if tally is not None:
        became = first or (names[tally.first] if renamed else "!")
        example = (items.names[tally.first], became)
    keys = tally.keys if tally else 0
    state.uses.append(Use(rule.text, rule.name, keys, count, example, number in matches.seen and not keys))


def _note_partial(
    rule: Rule, number: int, stage: Stage, matches: Matches, items: Items, names: list[str], state: State
) -> None:
    tally = matches.tallies.get(number)
    example = None
    if tally is not None:
        key, spans = items.names[tally.first], matches.touched.get(tally.first)
        became = [names[tally.first]] if spans is None else _names_or_none(key, spans, stage)
        is_dropped = rule.drops or any(tally.first in positions for positions in matches.dropped.values())
        example = (key, became[0] if became and not is_dropped else "!")
    count = tally.keys if tally else 0
    made_here = 0 if rule.drops else count * max(1, len(rule.targets))
    state.uses.append(Use(rule.text, rule.name, count, made_here, example, number in matches.seen and not count))


def _names_or_none(key: str, spans: list[Span], stage: Stage) -> list[str]:
    try:
        return new_names(key, spans, stage.rules)
    except ValueError:
        return []


def _note_unused(rule: Rule, items: Mapping[str, Item], state: State) -> None:
    hint = hint_for(rule, items, near=state.near and state.near_misses < _NEAR_MISSES)
    state.near_misses += 1
    what = f"matches none of the {len(items):,} keys" if len(items) != 1 else "does not match the only key"
    state.problem(f'{rule.name} "{rule.text}" {what}', hint)


def _touch(position: int, spans: list[Span], stage: Stage, items: Items, made: _Made, state: State) -> None:
    """What partial rules make of a tensor, where that is more than another name."""
    key, item = items.names[position], items.at(position)
    rules = [stage.rules[number] for number in sorted({span.rule for span in spans})]
    try:
        names = new_names(key, spans, stage.rules)
        applied = state.applied(item.rules, rules)
        steps = [step for rule in rules for step in rule.steps]
        mine = made.setdefault(position, [])
        for name in names:
            new = mapped(item, steps, name, state.context) if steps else item
            mine.append((name, Item(new.value, new.spec, applied)))
    except (CkptError, ValueError) as error:
        state.problem(f"{rules[0].name}: {error}", getattr(error, "hint", None), [key])


def _unmatched(stage: Stage, items: Items, matches: Matches, gone: bytearray, state: State) -> None:
    """Keys that no rule decides, where they are not just kept."""
    position = matches.taken.find(0)
    while position >= 0:
        if stage.unmatched == "drop":
            state.drop(items, position, Unmatched())
            gone[position] = 1
        else:
            key = items.names[position]
            state.problem("keys that no rule matches", 'give them a rule; to drop one: "KEY -> !"', [key])
        position = matches.taken.find(0, position + 1)


def _require_few(made: int, state: State) -> None:
    if made > state.most:
        raise UsageError(f"a stage would make more than {state.most:,} tensors")


def _collected(items: Items, state: State) -> Items:
    """The tensors of a stage; two for one name are a problem."""
    _require_few(len(items), state)
    if sum(map(len, items.names)) > MAX_NAMES:
        raise UsageError(f"the names of a stage would have more than {MAX_NAMES:,} characters")
    if len(set(items.names)) < len(items.names):
        places: dict[str, list[int]] = {}
        for position, name in enumerate(items.names):
            places.setdefault(name, []).append(position)
        for position, name in enumerate(items.names):
            if len(places[name]) > 1 and position == places[name][1]:
                rivals = places[name]
                sides = "; ".join(f"{_source_name(item)} {_by(item)}" for item in map(items.at, rivals[:4]))
                state.problem(
                    f'{len(rivals)} tensors would become "{name}": {sides}', "drop or rename one of them", [name]
                )
        items = items.chosen([positions[0] for positions in places.values()])
    if "" in items.names:
        item = items[""]
        state.problem(f"{_by(item)} nothing is left of {_source_name(item)}", "a rule that keeps a part of it")
    return items


def _source_name(item: Item) -> str:
    first = next(sources_of(item.value), None)
    return first.key if first else "a new tensor"


def _by(item: Item) -> str:
    return f"by {', '.join(map(str, item.rules))}" if item.rules else "kept"
