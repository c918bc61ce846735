"""The automatic match as a recipe: what ``--auto`` and ``--match auto`` put behind the rules that were given.

For a comparison nothing is written: each old tensor stands there as the rules make it, and is read when it is compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import PurePath

from ckptool.commands.llamacpp import known_rules, withheld_keys
from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.counts import listed, many
from ckptool.core.errors import UsageError
from ckptool.core.fold import rollup
from ckptool.core.keys import Pattern
from ckptool.core.near_miss import require_match
from ckptool.core.plan import Apply, Source, Step, Value, sources_of
from ckptool.core.reasons import FOUND
from ckptool.core.spec import TensorSpec
from ckptool.engine.reading import Reader
from ckptool.matching.match import match
from ckptool.matching.reshaped import with_reshaped
from ckptool.matching.result import Confidence, MatchReport
from ckptool.recipes.expand import expand
from ckptool.recipes.group import FitOp
from ckptool.recipes.inputs import numbers_beside
from ckptool.recipes.recipe import Expect, Recipe, combine, parse_recipe
from ckptool.values.mapped import Made, Mapped

Specs = Mapping[str, TensorSpec]
_NOTHING = "?{k**} -> !"  # nothing is sure enough


@dataclass(frozen=True, slots=True, eq=False)
class Automatic:
    """Rules that were found, and why.

    Attributes:
        recipe: the rules that were given, then those that were found.
        report: what was found, of every confidence.
        accept: the least confidence of what the recipe does.
        asked: the keys whose candidates are shown.
    """

    recipe: Recipe
    report: MatchReport
    accept: Confidence
    asked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Given:
    """Rules that come before those that are found; what they make is matched.

    Attributes:
        recipe: the rules.
        prefixes: put before the keys of each input.
        vars: numbers for the rules.
        fit: makes the ops of ``fit`` in them.
        is_known: nobody asked for them: ckptool knows the names of one side.
        withheld: keys of either side whose values may not be those of their name; only rules that are given take them.
    """

    recipe: Recipe = field(default_factory=Recipe)
    prefixes: Sequence[str] = ()
    vars: Mapping[str, float] | None = None
    fit: FitOp | None = None
    is_known: bool = False
    withheld: frozenset[str] = frozenset()


def automatic(
    given: Given,
    sources: Specs | Sequence[Specs],
    target: Specs,
    *,
    accept: Confidence = Confidence.ALIGNED,
    modules: Mapping[str, str] | None = None,
    reshaped: bool = False,
) -> Automatic:
    """Match what a recipe makes of a source with a target.

    Args:
        given: rules that come first.
        sources: key -> spec of each input.
        target: key -> spec of what is to come out.
        accept: the least confidence of what is done.
        modules: the target's module path -> class, where it is a model.
        reshaped: tensors that belong together by their names and differ in shape are brought together too.

    Example:
        >>> old, new = ({key: TensorSpec(key, "float32", (3, 5))} for key in ("module.fc.weight", "head.fc.weight"))
        >>> [rule.text for rule in automatic(Given(), old, new).recipe.rules]
        ['module. -> head.']
    """
    rules = given.recipe
    bare = replace(rules, init=(), tie=())
    first = expand(bare, sources, prefixes=given.prefixes, vars=given.vars, fit=given.fit)
    short = None if modules is None else {path: name.rpartition(".")[2] for path, name in modules.items()}
    every = {step.target.key: step.target for step in first.steps}
    made, beside = every, dict[str, TensorSpec]()
    if given.withheld:
        made = {key: spec for key, spec in every.items() if key not in given.withheld}
        beside = {key: spec for key, spec in every.items() if key in given.withheld}
    wanted = {key: spec for key, spec in target.items() if key not in given.withheld} if given.withheld else target
    report = match(made, wanted, target_modules=short, accept=accept, beside=beside)
    report = with_reshaped(report) if reshaped else report
    if given.is_known:
        first_rules = Note(f"the rules of the built-in recipe {rules.name} come first")
        report = replace(report, notes=(first_rules, *report.notes))
    report = _withholding(report, given.withheld, every, target)
    found = recipe_of_match(report, accept)
    return Automatic(combine([rules, found]) if rules != Recipe() else found, report, accept)


def _withholding(
    report: MatchReport, withheld: frozenset[str], sources: Iterable[str], targets: Iterable[str]
) -> MatchReport:
    """The report with the withheld keys among those that have no counterpart."""
    ours, theirs = ([key for key in side if key in withheld] for side in (sources, targets))
    if not ours and not theirs:
        return report
    left = ours or theirs
    many_are = f"{many(len(left), 'tensor')} of the GGUF file {'is' if len(left) == 1 else 'are'}"
    note = Note(
        f"{many_are} not matched, as llama.cpp may have changed their values: {listed(left, 2)}",
        "ckptool does not know this architecture of llama.cpp; rules that you give with -r are followed",
        tuple(left),
        "warning",
    )
    return replace(
        report,
        unmatched_sources=(*report.unmatched_sources, *ours),
        unmatched_targets=(*report.unmatched_targets, *theirs),
        notes=(*report.notes, note),
    )


def explained(found: Automatic, patterns: Sequence[str], path: PurePath | None = None) -> Automatic:
    """The match, to be shown with the candidates of some keys of either side; `path` is of the source.

    Raises:
        UsageError: a pattern matches none.
    """
    report = found.report
    paired = [key for pair in (*report.pairs, *report.reshaped) for key in (*pair.targets, *pair.sources)]
    keys = dict.fromkeys([*paired, *report.unmatched_targets, *report.unmatched_sources])
    asked = [key for text in patterns for key in require_match(Pattern.parse(text), keys, "--explain", path)]
    return replace(found, asked=tuple(dict.fromkeys(asked)))


def recipe_of_match(report: MatchReport, accept: Confidence) -> Recipe:
    """The rules that are as sure as `accept`, as a recipe that leaves out what no rule names."""
    rules = [rule.text for rule in report.rules if rule.confidence.within(accept)]
    found = parse_recipe(rules or [_NOTHING], name=FOUND)
    last = replace(found.stages[-1], unmatched="drop")
    return replace(found, stages=(*found.stages[:-1], last), expect=Expect(missing_patterns(report, accept)))


def missing_patterns(report: MatchReport, accept: Confidence) -> tuple[str, ...]:
    """What nothing is found for: whoever holds the outcome against the target expects no more."""
    made = {key: True for pair in report.accepted(accept) for key in pair.targets}
    paired = (key for pair in report.pairs for key in pair.targets)
    groups = rollup([(key, key in made) for key in dict.fromkeys([*paired, *report.unmatched_targets])])
    return tuple(group.pattern for group in groups if not group.label)


def match_checkpoints(
    old: Checkpoint, new: Checkpoint, given: Recipe | None = None, accept: Confidence = Confidence.ALIGNED
) -> Automatic:
    """What is found for two checkpoints that are to be compared.

    Args:
        old: the first checkpoint.
        new: the second.
        given: rules that come first.
        accept: the least confidence of what is compared.
    """
    specs, wanted = ({key: tensor.spec for key, tensor in side.items()} for side in (old, new))
    known = Recipe() if given and given.stages else known_rules(old, wanted, new.metadata)
    rules = known if known.stages else given or Recipe()
    withheld = frozenset[str]() if known.stages else withheld_keys((old, new), (old.metadata, new.metadata))
    first = Given(rules, vars=numbers_beside(rules, old.path), is_known=bool(known.stages), withheld=withheld)
    return automatic(first, specs, wanted, accept=accept, reshaped=True)


def mapped_by(recipe: Recipe, old: Checkpoint, new: Checkpoint) -> list[Mapped]:
    """The old checkpoint's tensors as a recipe makes them, for a comparison with the new one's.

    Raises:
        UsageError: the recipe cannot be carried out on these keys.
    """
    specs, wanted = ({key: tensor.spec for key, tensor in side.items()} for side in (old, new))
    made = expand(recipe, specs, vars=numbers_beside(recipe, old.path, metadata=old.metadata), targets=wanted)
    for problem in made.problems:
        raise UsageError(problem.message, hint=problem.hint or None, path=old.path)
    return [_as_compared(step, old) for step in made.steps if any(sources_of(step.value))]


def _as_compared(step: Step, old: Checkpoint) -> Mapped:
    sources = tuple(dict.fromkeys(source.key for source in sources_of(step.value)))
    if isinstance(step.value, Source):
        return Mapped(step.target.key, sources, old[sources[0]])
    spec = replace(step.target, key=sources[0])
    made = Made(spec, blocks=partial(_blocks, step.value, old))
    return Mapped(step.target.key, sources, made, _how(step.value))


def _blocks(value: Value, old: Checkpoint, reader: Reader) -> Iterator[memoryview]:
    from ckptool.engine.evaluate import packed_blocks

    return packed_blocks(value, (old,), reader)


def _how(value: Value) -> str:
    """The layouts, from the sources on."""
    texts: list[str] = []
    while isinstance(value, Apply):
        texts.append(value.op.text)
        value = value.args[0]
    return " | ".join(reversed(texts))
