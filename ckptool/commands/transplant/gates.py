"""What a transplant must come up to: gates, a recipe's expectations, and that anything is loaded at all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from ckptool.commands.transplant.advice import command_text
from ckptool.commands.transplant.result import Transplant, weighed
from ckptool.commands.transplant.shares import least_filled, module_of, share_of
from ckptool.commands.transplant.suggest import as_checkpoint, is_small, model_names
from ckptool.core.counts import many
from ckptool.core.errors import CkptError
from ckptool.core.keys import Pattern
from ckptool.core.plan import Problem
from ckptool.facts.adapters import Adapter
from ckptool.facts.encoded import Encoded
from ckptool.facts.registry import facts_of
from ckptool.facts.words import with_file
from ckptool.models import Verdict
from ckptool.models.entries import Entry, Filled
from ckptool.recipes.recipe import Recipe

_NEW = "--new PATTERN names what is meant to start anew"


def frozen(entries: Iterable[Entry], rules: Recipe) -> tuple[str, ...]:
    """Parameters that came from the source whole, none of them fitted; those that the recipe names, if it names any."""
    named = [Pattern.parse(text) for text in rules.freeze]
    parameters = (
        entry
        for entry in entries
        if entry.kind == "parameter" or not (entry.kind or entry.is_counter or entry.is_statistic)
    )
    if named:
        return tuple(entry.key for entry in parameters if any(pattern.matches(entry.key) for pattern in named))
    return tuple(entry.key for entry in parameters if entry.is_whole)


def loaded_though_new(entries: Iterable[Entry], new: Iterable[str]) -> Iterator[Problem]:
    """A problem for each pattern of --new that means a tensor which the source fills."""
    filled = [entry for entry in entries if entry.is_filled and not entry.is_harmless]
    for text in new:
        pattern = Pattern.parse(text)
        if found := [entry for entry in filled if pattern.matches(entry.key)]:
            first = found[0]
            said = f'"{text}" is meant to start anew, and the source fills {first.key}'
            hint = (
                f'--drop "{module_of(first.sources[0])}" leaves it to the model'
                if first.sources
                else "leave it out of --new"
            )
            yield Problem(said, hint, tuple(entry.key for entry in found))


def unmet(transplant: Transplant, strict: bool, min_coverage: float | None) -> tuple[Problem, ...]:
    """What the gates say: --strict, --min-coverage and the recipe's expectations."""
    expect = transplant.asked.recipe.expect
    found: list[Problem] = []
    if strict and not transplant.verdict.strict:
        found += _not_strict(transplant.verdict, transplant.new)
    elif strict and (lost := [key for key in transplant.lost if key in unfilled(transplant)]):
        what = f"a load hook of the model fills {lost[0]} in a way that ckptool cannot follow"
        found.append(Problem(what, "load it in torch, save the model's state dict, and use that", tuple(lost)))
    if expect.missing or expect.unexpected:
        left = [e.key for e in transplant.having(Filled.MISSING, Filled.MISMATCHED) if not e.is_counter]
        unexpected = [spec.key for spec in transplant.unexpected]
        for what, keys, allowed in (("missing", left, expect.missing), ("unexpected", unexpected, expect.unexpected)):
            patterns = [Pattern.parse(text) for text in allowed]
            if wrong := [key for key in keys if not any(pattern.matches(key) for pattern in patterns)]:
                hint = f"the recipe's expect.{what} does not allow it"
                found.append(Problem(f"{_keys(len(wrong))} {what}: {wrong[0]}", hint, tuple(wrong)))
    least = min_coverage if min_coverage is not None else expect.coverage
    counted = [entry for entry in transplant.entries if entry.key not in transplant.new]
    filled, whole = weighed(counted)
    if least is not None and filled < least * whole:
        said = f"{filled:,} of {whole:,} elements ({filled / whole:.2%}) come from the source"
        found.append(Problem(f"{said}, less than {least:.2%}", _NEW))
    elif min_coverage is not None:
        found += _not_even(counted, transplant.mapped, min_coverage)
    return tuple(found)


def _not_even(entries: Sequence[Entry], mapped: Iterable[str], least: float) -> list[Problem]:
    """Shares of elements hide norms: tensors count, and each module that the source has, too."""
    whole = share_of("", entries)
    filled, total = whole.tensors
    if filled < least * total:
        said = f"{filled:,} of {total:,} tensors come from the source, less than {least:.2%}"
        left = [entry.key for entry in entries if not entry.is_filled and not entry.is_harmless]
        return [
            Problem(
                said,
                f"tensors count as elements do; {_NEW}",
                tuple(left),
            )
        ]
    module = least_filled(entries, mapped)
    if module is None or module.share >= least:
        return []
    filled, total = module.tensors
    said = f"{module.name} is in the source, and {filled:,} of its {total:,} tensors come from it"
    return [
        Problem(
            f"{said} ({module.share:.0%} of the module), less than {least:.2%}",
            f'--new "{module.name}" if it is meant to start anew',
        )
    ]


def unfilled(transplant: Transplant) -> set[str]:
    """Keys of the model that nothing of the source fills."""
    return {entry.key for entry in transplant.having(Filled.MISSING, Filled.MISMATCHED)}


def _not_strict(verdict: Verdict, new: Collection[str]) -> list[Problem]:
    """What torch would not load, tensors aside that are meant to start anew."""
    keys = (verdict.missing, verdict.unexpected, verdict.mismatched)
    named = zip(("missing", "unexpected", "of another shape"), keys, strict=True)
    left = ((what, tuple(key for key in each if key not in new)) for what, each in named)
    found = [
        Problem(f"{_keys(len(each))} {what}: {each[0]}", "--strict wants what torch loads strictly", each)
        for what, each in left
        if each
    ]
    if not found and any(keys):
        return []
    return found or [Problem(f"the model refuses it: {verdict.summary}")]


def _keys(count: int) -> str:
    return many(count, "key is", "keys are")


def loads(transplant: Transplant) -> bool:
    """True if a tensor of the target is filled that is no counter."""
    return any(entry.is_filled and not entry.is_counter for entry in transplant.entries)


def require_loaded(transplant: Transplant, command: Sequence[str] = ()) -> None:
    """Nothing loaded is an error, whatever else was asked. Counters alone are nothing.

    Args:
        transplant: what was decided, with what would load more.
        command: the words of the command line that asked for it, without the program's name; none in Python.

    Raises:
        CkptError: if no tensor of the target is filled.
    """
    if loads(transplant):
        return
    adapter = next((fact for fact in facts_of(transplant.source) if isinstance(fact, Adapter)), None)
    if adapter is not None and not adapter.has_base:
        hint = with_file(adapter.way, transplant.source)
        raise CkptError(f"this is an adapter, not a model: {adapter.text}", hint=hint, path=transplant.source.path)
    if quantized := [fact for fact in facts_of(transplant.source) if isinstance(fact, Encoded)]:
        hint = "decode them: --dequantize"
        raise CkptError(
            f"nothing would be loaded as it is: {quantized[0].text}", hint=hint, path=transplant.source.path
        )
    if transplant.suggested:
        first = transplant.suggested[0]
        hint = f"{first.text}: {first.hint}" if first.hint else first.text
        raise CkptError("nothing would be loaded as it is", hint=hint, path=transplant.source.path)
    if doubt := next((note for note in transplant.plan.notes if transplant.withheld and note.level == "warning"), None):
        raise CkptError(f"nothing would be loaded: {doubt.text}", hint=doubt.hint, path=transplant.source.path)
    target = transplant.target
    kept = transplant.source
    shared = sum(key in kept and kept[key].shape != spec.shape for key, spec in target.specs.items())
    shapes = len(transplant.having(Filled.MISMATCHED)) or shared
    source, wanted = next(iter(transplant.source), ""), next(iter(target.specs), "")
    names = f'the source has "{source}", the model "{wanted}"'
    if transplant.match is not None and not shapes:
        what = "; ".join(note.text for note in transplant.match.report.notes) or "nothing is sure enough"
        hint = f'{names}; a rule puts them together: -r "FROM -> TO"'
    elif shapes:
        what = f"{_keys(shapes)} in both, with other shapes"
        hint = "is it another size of the model? --model-arg says how it is built, --fit how a tensor is made to fit"
    else:
        what = f"no key is a key of {target.name}"
        hint = _way_on(transplant, names, command)
    raise CkptError(f"nothing would be loaded: {what}", hint=hint, path=transplant.source.path)


def _way_on(transplant: Transplant, names: str, command: Sequence[str]) -> str:
    """What to type where no name meets; where recipes and a match were tried in vain, what both sides are."""
    rule = '-r "FROM -> TO" says what goes where'
    if not command:
        return f'{names}; ckptool.match(SOURCE, MODEL).recipe looks for rules, recipe=["FROM -> TO"] says one'
    if not is_small(transplant):
        return f"{names}; this looks for rules: {command_text([*command, '--match', 'auto'])}"
    sides = [model_names(transplant.source), model_names(as_checkpoint(transplant.target))]
    if all(sides) and sides[0] != sides[1]:
        return f"the source is {sides[0]}, the model is {sides[1]}; {rule}"
    return f"{names}; no built-in recipe and no match fits; {rule}"
