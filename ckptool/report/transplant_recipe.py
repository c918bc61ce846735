"""A transplant as a recipe: TOML that does the same again, to be read and edited, with the evidence as comments."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ckptool.commands.transplant.result import Transplant
from ckptool.core.counts import many
from ckptool.core.errors import CkptError, UsageError
from ckptool.core.fold import rollup
from ckptool.core.plan import Use
from ckptool.core.reasons import ByOption, OtherPlace, Reason, RuleName
from ckptool.core.toml import toml_text
from ckptool.models.entries import Entry, Filled
from ckptool.recipes.recipe import Recipe, parse_recipe
from ckptool.recipes.renaming import drop_rules, unsayable
from ckptool.recipes.reverse import reverse
from ckptool.recipes.rules import Rule
from ckptool.report.escape import terminal
from ckptool.report.match_words import rule_words
from ckptool.report.reasons import reason_text
from ckptool.report.units import count

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def transplant_recipe(transplant: Transplant, source: str, name: str) -> Iterator[str]:
    """TOML for ``ckptool transplant SOURCE --into MODEL -r FILE``, which makes the same output.

    Args:
        transplant: what to write down.
        source: the source as the user wrote it.
        name: of the file.

    Raises:
        UsageError: a recipe that was used has rules that cannot stand before others in one file.
    """
    asked = transplant.asked
    seed = f" --seed {asked.seed}" if asked.seed else ""
    yield f"# {terminal(source)} -> {terminal(transplant.target.name)}, written by ckptool; edit it and use it with\n"
    yield f"#   ckptool transplant SOURCE --into MODEL -r {terminal(name)}{seed} -o OUT\n"
    yield "ckptool = 1\n"
    if transplant.source.selection.path:
        yield f"source.select = {toml_text(transplant.source.selection.name)}\n"
    stages = [stage for stage in (_drops(transplant), *_names(transplant), _fits(transplant)) if stage]
    if stages:
        yield from _reversible(stages)
        yield from _rules(stages)
    if (
        asked.recipe.stages
        and asked.recipe.stages[-1].unmatched != "keep"
        and not (transplant.swap or _fits(transplant))
    ):
        yield f"unmatched = {toml_text(asked.recipe.stages[-1].unmatched)}\n"
    yield from _tables(asked.recipe, (*asked.init, *asked.recipe.init))
    yield from _outcome(transplant)


_Line = tuple[str, str]
"""A rule, and the evidence for it."""


def _drops(transplant: Transplant) -> list[_Line]:
    """What --drop and shapes left out, as rules."""
    by_option: dict[Reason, list[str]] = {}
    for row in transplant.plan.dropped:
        if isinstance(row.reason, ByOption | OtherPlace):
            by_option.setdefault(row.reason, []).append(row.source.key)
    gone = {key for keys in by_option.values() for key in keys}
    kept = [key for key in transplant.source if key not in gone]
    lines: list[_Line] = []
    for option, keys in by_option.items():
        others = [*kept, *(key for other, more in by_option.items() if other != option for key in more)]
        rules = drop_rules(keys, others)
        comment = f"{many(len(keys), 'key')}, {reason_text(option)}"
        lines += [(rule, comment if at == 0 else "") for at, rule in enumerate(rules)]
        if odd := unsayable(
            key for key in keys if not any(rule.startswith(f"{key.split('.')[0]}.{{") for rule in rules)
        ):
            raise UsageError(f'no rule can name "{odd[0]}"', hint="leave --save-recipe out, and repeat --drop")
    return lines


def _names(transplant: Transplant) -> Iterator[list[_Line]]:
    """How source keys become the model's: the recipe that was used, or the prefix that was seen through."""
    recipe = transplant.asked.recipe
    swap = transplant.swap
    put = [(swap.rule, f"{many(len(transplant.filled), 'key')} meet, same name and shape")] if swap else []
    if not recipe.stages:
        yield put
        return
    if transplant.under:
        yield [(f"{transplant.under} ->", "the rules apply under it")]
    uses = {use.name: use for use in transplant.plan.uses}
    found = transplant.match.report.rules if transplant.match else ()
    why = {rule.text: rule_words(rule) for rule in found}
    for number, stage in enumerate(recipe.stages):
        is_last = number == len(recipe.stages) - 1 and not put and not _fits(transplant)
        lines = [(rule.text, rule.comment or why.get(rule.text) or _evidence(rule, uses)) for rule in stage.rules]
        if stage.unmatched == "drop" and not is_last:
            if not all(rule.is_whole for rule in stage.rules):
                raise UsageError(
                    f'{recipe.name}: unmatched = "drop" cannot stand before the fits',
                    hint="name what is dropped by rules, or put the fits into the recipe",
                )
            lines.append(("?{k**} -> !", 'unmatched = "drop"'))
        yield lines
    yield put


def _evidence(rule: Rule, uses: Mapping[RuleName, Use]) -> str:
    keys = uses[rule.name].keys if rule.name in uses else 0
    return rule.comment or (many(keys, "key") if keys else "")


def _fits(transplant: Transplant) -> list[_Line]:
    """What --fit and --mismatch fit did; one rule for all keys with one last part, where it says the same of all."""
    fitted = [entry for entry in transplant.entries if entry.fit]
    lasts: dict[str, list[Entry]] = {}
    for entry in fitted:
        lasts.setdefault(entry.key.rpartition(".")[2], []).append(entry)
    like = Counter(key.rpartition(".")[2] for key in transplant.mapped)
    lines: list[_Line] = []
    for last, entries in lasts.items():
        texts = {entry.fit for entry in entries}
        if len(entries) > 1 and len(texts) == 1 and like[last] == len(entries):
            lines.append((f"{{m**}}.{last} -> {{m**}}.{last} | {entries[0].fit}", many(len(entries), "key")))
            continue
        lines += [(f"{e.key} -> {e.key} | {e.fit}", f"{e.found} -> {e.spec.short}") for e in entries]
    if odd := unsayable(entry.key for entry in fitted):
        raise UsageError(f'no rule can name "{odd[0]}"', hint="leave --save-recipe out")
    return lines


def _rules(stages: Sequence[Sequence[_Line]]) -> Iterator[str]:
    yield "rules = '''\n"
    for at, stage in enumerate(stages):
        if at:
            yield "---\n"
        widest = min(60, max(len(rule) for rule, _ in stage))
        for rule, comment in stage:
            yield f"{rule:<{widest}}  # {_comment(comment)}\n" if comment else f"{rule}\n"
    yield "'''\n"


def _reversible(stages: Sequence[Sequence[_Line]]) -> Iterator[str]:
    """Whether ``remap --reverse`` goes back, and what it loses."""
    lines: list[str] = []
    for at, stage in enumerate(stages):
        lines += [*(["---"] if at else []), *(rule for rule, _ in stage)]
    try:
        losses = reverse(parse_recipe(lines)).losses
    except CkptError as error:
        yield f"# not reversible: {_comment(error.message)}\n"
        return
    yield "# reversible: ckptool remap OUT -r THIS --reverse\n"
    for loss in losses:
        yield f"#   {_comment(loss)}\n"


def _tables(recipe: Recipe, init: Iterable[tuple[str, str]]) -> Iterator[str]:
    """What stands beside the rules."""
    for name, value in recipe.vars.items():
        yield f"vars.{_key(name)} = {toml_text(value) if isinstance(value, str) else value!r}\n"
    said: set[str] = set()
    for pattern, how in init:
        if pattern not in said:  # the first counts
            yield f"init.{toml_text(pattern)} = {toml_text(how)}\n"
        said.add(pattern)
    for keys in recipe.tie:
        yield f"tie = [{_list(keys)}]\n" if len(recipe.tie) == 1 else ""
    if len(recipe.tie) > 1:
        yield f"tie = [{', '.join(_list(keys) for keys in recipe.tie)}]\n"


def _outcome(transplant: Transplant) -> Iterator[str]:
    """What came of it, as expectations: another source or model that does not do as well is an error."""
    if transplant.freeze:
        frozen = set(transplant.freeze)
        parameters = [(entry.key, entry.key in frozen) for entry in transplant.entries if entry.kind != "buffer"]
        patterns = [group.pattern for group in rollup(parameters, together=[True]) if group.label]
        yield f"# {many(len(frozen), 'parameter')}\n"
        yield f"freeze = {_list(patterns)}\n"
    left = {entry.key: reason_text(entry.reason) for entry in transplant.having(Filled.MISSING, Filled.MISMATCHED)}
    for how, keys in Counter(left.values()).items():
        yield f"# {many(keys, 'key')}: {_comment(how)}\n"
    missing = rollup([(entry.key, entry.key in left) for entry in transplant.entries])
    yield f"expect.missing = {_list([group.pattern for group in missing if group.label])}\n"
    extra = {spec.key for spec in transplant.unexpected}
    unexpected = [group.pattern for group in rollup([(key, key in extra) for key in transplant.mapped]) if group.label]
    yield f"expect.unexpected = {_list(unexpected)}\n"
    filled, whole = transplant.weighed
    yield f"# {count(filled)} of {count(whole)} elements\n"
    yield f"expect.coverage = {int(transplant.coverage * 10_000) / 10_000}\n"


# ---------------------------------------------------------------------------------------------- TOML


def _key(text: str) -> str:
    return text if _BARE.fullmatch(text) else toml_text(text)


def _list(texts: Iterable[str]) -> str:
    """An array of texts, one a line where one line is too narrow."""
    items = [toml_text(text) for text in texts]
    line = f"[{', '.join(items)}]"
    return line if len(line) <= 80 else "".join(["[\n", *(f"    {item},\n" for item in items), "]"])


def _comment(text: str) -> str:
    return terminal(" ".join(text.split()), 300).replace("'''", "")
