"""From pairs of keys to rules.

Most renamings are said by rules that do a part each: what keys begin with (``module. -> base.``), what is inside of
them (``.attn.query. -> .self_attn.q_proj.``). Tensors that are joined or split, and whatever such rules would not say
exactly, get rules for whole keys, which decide theirs alone. What comes out is expanded on the actual keys: rules say
what the pairs say and nothing else, with drops for what they would take along.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

from ckptool.recipes.induce.choices import chosen
from ckptool.recipes.induce.drops import drops_of
from ckptool.recipes.induce.edits import Edit, Parts, chosen_cuts, common_prefixes, forms_of
from ckptool.recipes.induce.fold import Texts, folded
from ckptool.recipes.induce.joined import is_joint, joint_line
from ckptool.recipes.induce.lines import Line, Ruled, Said, is_sayable, with_roles
from ckptool.recipes.induce.proof import Made, Specs, made_by
from ckptool.recipes.induce.reversing import why_not_reversed
from ckptool.recipes.induce.sample import for_all, form_of, like_sample, sample_of

LONGEST = 120
"""Characters of a rule, where it can be."""
_SHORT = 80  # characters of a rule with a choice that does a part
_RULE = 12  # what a rule costs beside its characters
_MOST_COMPARED = 5000  # pairs; of more, rules that name whole keys are made only where others do not do
_MUCH = 0.7  # of the cost, at most: that many fewer and shorter rules
_FEW = 4  # rules that nobody needs fewer of
_REPAIRS = 4
_LOOKED_AT = 10  # rules that are looked at one by one
_FEW_MODULES = 3  # that are named one by one where they stay as they are


def rules_from(pairs: Sequence[Said], source: Specs, target: Specs, *, in_parts: bool = True) -> list[Ruled]:
    """Rules that say exactly what the pairs say, together with drops of what they would take along by mistake.

    Args:
        pairs: in the order of the model. What the rule language cannot name is left out.
        source: the source's specs.
        target: the target's.
        in_parts: rules may do a part of a renaming each; else every rule names whole keys, and can be taken or left
            without the others.

    Example:
        >>> from ckptool.core.spec import TensorSpec
        >>> specs = [{key: TensorSpec(key, "float32", (4,))} for key in ("module.fc.bias", "fc.bias")]
        >>> class Pair:
        ...     sources, targets, layout = ("module.fc.bias",), ("fc.bias",), ""
        >>> [rule.text for rule in rules_from([Pair()], *specs)]
        ['module. ->']
    """
    work = _Work([pair for pair in pairs if all(map(is_sayable, (*pair.sources, *pair.targets)))], source, target)
    if not work.pairs:
        return []
    if not in_parts:
        return work.whole(_LOOKED_AT)
    if len(work.pairs) > _MOST_COMPARED and (found := work.by_sample()):
        return found
    first: list[Ruled] = []
    for rules in work.ways():
        first = first or rules
        if not why_not_reversed(rules, source, target):
            return rules
    return first


def _cost(rules: Sequence[Ruled]) -> int:
    """Characters, and some for each rule; drops are what both ways need."""
    return sum(len(rule.text) + _RULE for rule in rules if rule.said)


class _Work:
    """Pairs on their way to rules."""

    def __init__(self, pairs: Sequence[Said], source: Specs, target: Specs) -> None:
        self.pairs, self.source, self.target = pairs, source, target
        self.place = {id(pair): at for at, pair in enumerate(pairs)}
        self.kept = {key for pair in pairs for key in pair.sources}
        self.wanted: Made = {
            key: (tuple(sorted(set(pair.sources))) if len(pair.sources) > 1 else pair.sources, target[key].shape)
            for pair in pairs
            for key in pair.targets
        }

    @cached_property
    def texts(self) -> Texts:
        return Texts(self.source)

    def ways(self) -> Iterator[list[Ruled]]:
        """Rules that hold, the best first: that do a part each, and whole keys where these are much shorter."""
        parts = self._in_parts(narrow=False)
        if parts is None:
            yield self.whole()
            return
        is_long = sum(bool(rule.said) for rule in parts) > _FEW
        whole = self.whole() if is_long and len(self.pairs) <= _MOST_COMPARED else []
        if whole and self._says_all(whole) and _cost(whole) < _MUCH * _cost(parts):
            yield whole
        yield parts
        if (rules := self._in_parts(narrow=True)) is not None:
            yield rules
        whole = whole or self.whole()
        if self._says_all(whole):
            yield whole

    def by_sample(self) -> list[Ruled]:
        """Rules that a few pairs of each form make, if they say all; else none."""
        forms = [*map(form_of, self.pairs)]
        some = sample_of(self.pairs, forms)
        if 2 * len(some) > len(self.pairs):
            return []
        source = like_sample(self.source, self.kept, [key for pair in some for key in pair.sources])
        target = like_sample(self.target, self.wanted.keys(), [key for pair in some for key in pair.targets])
        rules = for_all([rule for rule in rules_from(some, source, target) if rule.said], self.pairs, forms)
        return (self._checked(rules)[0] or []) if rules else []

    def _says_all(self, rules: Sequence[Ruled]) -> bool:
        """No pair is left out."""
        return len({id(pair) for rule in rules for pair in rule.said}) == len(self.pairs)

    def _in_parts(self, *, narrow: bool) -> list[Ruled] | None:
        """Rules that do a part each; keys that they would get wrong have rules of their own. None if that fails."""
        joint = [pair for pair in self.pairs if is_joint(pair)]
        alone = set(map(id, joint))
        for _ in range(_REPAIRS):
            single = [pair for pair in self.pairs if id(pair) not in alone]
            rules = self._edited(single, [pair for pair in self.pairs if id(pair) in alone], narrow=narrow)
            found, wrong = self._checked(rules)
            if found is not None:
                return found
            if not wrong:
                return None
            alone |= wrong
        return None

    def whole(self, few: int = 0) -> list[Ruled]:
        """Rules for whole keys, pair by pair where one rule would be wrong. Up to `few` rules are not joined."""
        lines = self._lines(self.pairs, few)
        found, _ = self._checked(self._in_order(lines))
        if found is not None:
            return found
        good: list[Line] = []
        for line in lines:
            singles = [Line(pair.sources, pair.targets, pair.layout, (pair,)) for pair in line.said]
            good += [line] if self._holds(line) else filter(self._holds, singles)
        return self._in_order(good)

    # ------------------------------------------------------------------------------------------ whole keys

    def _lines(self, pairs: Iterable[Said], few: int = 0) -> list[Line]:
        """Lines for whole keys, as few as can be."""
        lines = [
            joint_line(pair, self.source, self.target)
            if is_joint(pair)
            else Line(pair.sources, pair.targets, pair.layout, (pair,))
            for pair in pairs
        ]
        lines = folded(with_roles(lines, self.source), self.texts)
        return [self._short(line) for line in (lines if len(lines) <= few else chosen(lines, LONGEST))]

    def _short(self, line: Line) -> Line:
        """A long line with ``{m**}`` for what all its patterns have in common, where that means the same."""
        if len(line.text) <= LONGEST:
            return line
        sides = [[*map(str.split, side, "." * len(side))] for side in (line.left, line.right)]
        for size in range(min(len(one) for side in sides for one in side) - 1, 0, -1):
            first = sides[0][0][:size]
            rows = [[_without(one, first) for one in side] for side in sides]
            if all(row is not None for side in rows for row in side):
                left, right = (tuple(row for row in side if row is not None) for side in rows)
                made = replace(line, left=left, right=right)
                if self._holds(made):
                    return made
        return line

    def _holds(self, line: Line) -> bool:
        """A line says what its pairs say, taken by itself."""
        wanted = {key: self.wanted[key] for pair in line.said for key in pair.targets}
        made, is_well = made_by([line.text], self.source, self.target)
        return is_well and made == wanted

    # ------------------------------------------------------------------------------------------ parts of keys

    def _edited(self, single: Sequence[Said], joint: Sequence[Said], *, narrow: bool) -> list[Ruled]:
        """Rules that do a part each for some pairs, and rules for whole keys for others."""
        prefixes = common_prefixes(single)
        forms = forms_of(single, prefixes)
        rows: dict[Edit, dict[tuple[Parts, tuple[Parts, ...]], list[Said]]] = defaultdict(lambda: defaultdict(list))
        whole, same, parts = [*joint], list[Said](), list[Said]()
        for form, cut in zip(forms, chosen_cuts(forms), strict=True):
            if not cut.edits:
                same += form.said
            if cut.inner and cut.inner.where == "key":
                whole += form.said
                continue
            parts += form.said
            for pair, (ours, theirs) in zip(form.said, form.rows, strict=True):
                if cut.head:
                    after = tuple(one[:start] for one, start in zip(theirs, cut.starts, strict=True))
                    rows[cut.head][ours[: cut.begin], after].append(pair)
                if cut.inner:
                    size = len(cut.inner.new[0])
                    becomes = theirs[0][cut.starts[0] : cut.starts[0] + size]
                    rows[cut.inner][ours[cut.begin : cut.end], (becomes,)].append(pair)
        found: dict[str, list[Line]] = defaultdict(list)
        first = "".join(f"{part}." for part in prefixes[0])
        keys = [key.removeprefix(first) for key in self.kept]
        for edit, some in rows.items():
            lines = [
                Line((".".join(ours),), tuple(map(".".join, theirs)), edit.layout, tuple(said))
                for (ours, theirs), said in some.items()
            ]
            texts = Texts(_runs(edit, keys))
            found[edit.where] += folded(lines, texts, narrow=narrow)
        rules: list[Ruled] = []
        for where, row in found.items():
            place = "inside" if where == "head" and any(prefixes) else where
            rules += [_dotted(line, place) for line in chosen(row, _SHORT)]
        if parts and any(prefixes):
            old, new = map(".".join, prefixes)
            rules.append(_dotted(Line((old,), (new,), "", tuple(parts)), "head"))
        rules += self._in_order(self._lines(sorted(whole, key=lambda pair: self.place[id(pair)])))
        if same and not any(prefixes):
            rules += self._staying(same, alone=not rules)
        return rules

    def _staying(self, same: Sequence[Said], *, alone: bool) -> list[Ruled]:
        """Rules for tensors whose names stay."""
        if alone:
            return [_Rest("{m**} -> {m**}", tuple(same))]
        modules: dict[str, list[Said]] = defaultdict(list)
        for pair in same:
            modules[pair.sources[0].partition(".")[0] + "." * ("." in pair.sources[0])].append(pair)
        lines = [Line((name,), (name,), "", tuple(said)) for name, said in modules.items()]
        lines = folded(lines, Texts(key.partition(".")[0] + "." * ("." in key) for key in self.kept))
        if len(lines) <= _FEW_MODULES:
            return [Ruled(line.text, line.said) for line in lines]
        return [_Rest(".{p*} -> .{p*}", tuple(same))]

    # ------------------------------------------------------------------------------------------ order, proof

    def _in_order(self, lines: Iterable[Line]) -> list[Ruled]:
        return self._by_model([Ruled(line.text, line.said) for line in lines])

    def _by_model(self, rules: Iterable[Ruled]) -> list[Ruled]:
        return sorted(
            rules, key=lambda rule: (isinstance(rule, _Rest), min(self.place[id(pair)] for pair in rule.said))
        )

    def _checked(self, rules: Sequence[Ruled]) -> tuple[list[Ruled] | None, set[int]]:
        """The rules in an order in which they hold, with drops; None and the pairs that come out wrong."""
        least: set[int] | None = None
        by_model = self._by_model(rules)
        by_length = sorted(by_model, key=lambda rule: (isinstance(rule, _Rest), -len(rule.text.partition(" -> ")[0])))
        for some in (by_model, by_length):
            made, is_well = made_by([rule.text for rule in some], self.source, self.target)
            extra = {key: row for key, row in made.items() if key not in self.wanted}
            wrong = {id(pair) for pair in self.pairs if any(made.get(key) != self.wanted[key] for key in pair.targets)}
            del made
            taken = {key for sources, _ in extra.values() for key in sources}
            wrong |= {id(pair) for pair in self.pairs if not taken.isdisjoint(pair.sources)} if taken else set()
            if not wrong and not extra and is_well:
                return some, set()
            for drops in drops_of(taken, self.kept, self.source) if taken and not wrong else ():
                texts = [*drops, *(rule.text for rule in some)]
                if made_by(texts, self.source, self.target) == (self.wanted, True):
                    return [*(Ruled(text, ()) for text in drops), *some], set()
            least = wrong if least is None or len(wrong) < len(least) else least
        return None, least or set()


class _Rest(Ruled):
    """A rule that stands for whatever is left, and comes last."""


def _without(parts: Sequence[str], run: Sequence[str]) -> str | None:
    """A pattern with ``{m**}`` for a run of its parts; None if it is not there."""
    size = len(run)
    for at in range(len(parts) - size + 1):
        if list(parts[at : at + size]) == list(run):
            return ".".join([*parts[:at], "{m**}", *parts[at + size :]])
    return None


def _runs(edit: Edit, keys: Iterable[str]) -> Iterator[str]:
    """What the left of an edit could mean: the beginnings of keys, or the runs of parts inside, of its form."""
    size, last = len(edit.old), edit.old[-1:]
    seen: set[str] = set()
    for key in keys:
        parts = key.split(".")
        if edit.where == "head":
            places: Iterable[int] = (0,) if len(parts) > size else ()
        elif edit.where == "end":
            places = (len(parts) - size,) if len(parts) >= size else ()
        else:
            places = range(len(parts) - size)
        for at in places:
            text = ".".join(parts[at : at + size])
            if text not in seen and (re.sub("[0-9]+", "#", parts[at + size - 1]),) == last:
                seen.add(text)
                yield text


def _dotted(line: Line, where: str) -> Ruled:
    """A line for parts of keys as a rule, with the dots that say where they are."""
    before, behind = "." * (where != "head"), "." * (where != "end")
    left, *right = (f"{before}{one}{behind}" if one else "" for one in (*line.left, *line.right))
    text = f"{left} -> {', '.join(right)}".strip()
    return Ruled(text + (f" | {line.layout}" if line.layout else ""), line.said)
