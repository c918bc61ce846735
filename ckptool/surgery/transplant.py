"""transplant: a checkpoint's weights into a model of another make, and the whole truth about what went where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from ckptool.checkpoint import Checkpoint, Note
from ckptool.errors import CkptError, UsageError
from ckptool.keys import Pattern, require_match
from ckptool.matching.prefixes import prefix_swap
from ckptool.spec import DTYPES, TensorSpec
from ckptool.surgery.expand import expand
from ckptool.surgery.fit import default_fit, fit_op
from ckptool.surgery.initial import Blended, Initial, ModelInit
from ckptool.surgery.ops import Cast, made
from ckptool.surgery.plan import Apply, Dropped, Op, Plan, Problem, Source, Step, Use, sources_of
from ckptool.surgery.recipe import Recipe
from ckptool.surgery.recipe_inputs import json_lookup, resolve_vars
from ckptool.surgery.rules import Fit, parse_fit
from ckptool.surgery.versions import carried_versions

if TYPE_CHECKING:
    from ckptool.models import Target, Verdict

Mismatch = Literal["skip", "error", "fit"]
Specs = Mapping[str, TensorSpec]

_COUNTER = "num_batches_tracked"


class Filled(StrEnum):
    """How a target tensor got its elements.

    FILLED: a source tensor of equal shape and dtype. CAST: of another dtype. FITTED: of another shape, made to fit.
    MISSING: nothing in the source; it keeps the model's init. MISMATCHED: a source tensor of another shape, not used.
    """

    FILLED = "filled"
    CAST = "cast"
    FITTED = "fitted"
    MISSING = "missing"
    MISMATCHED = "mismatched"


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of the target.

    Attributes:
        spec: its key, dtype and shape in the target.
        status: see `Filled`.
        sources: keys of the source tensors it is made of; of the one that did not fit, if mismatched.
        found: dtype and shape of the tensor that the source has for it, in the short notation; "" if none.
        how: the rule and evidence: "same key", "rule 2", "fit channels".
        kind: "parameter" or "buffer"; "" if the target is a checkpoint.
        why: what is true of a tensor that is not filled: "keeps the model's init".
        is_harmless: True if the model works as well without it.
    """

    spec: TensorSpec
    status: Filled
    sources: tuple[str, ...] = ()
    found: str = ""
    how: str = ""
    kind: str = ""
    why: str = ""
    is_harmless: bool = False

    @property
    def key(self) -> str:
        return self.spec.key

    @property
    def is_filled(self) -> bool:
        """True if its elements come from the source."""
        return self.status in (Filled.FILLED, Filled.CAST, Filled.FITTED)


@dataclass(frozen=True, slots=True, eq=False)
class Transplant:
    """A transplant, decided on headers.

    Attributes:
        plan: the output: a complete state dict of the target, or only what was loaded.
        target: the model.
        entries: every tensor of the target, in its order.
        unexpected: keys of the source (as the rules made them) that the target does not have.
        verdict: what `load_state_dict(strict=True)` says of the source as the rules made it, before anything is filled.
        seed: of the model's init.
        freeze: parameters that came from the source and are not to be trained.
    """

    plan: Plan
    target: Target
    entries: tuple[Entry, ...]
    unexpected: tuple[TensorSpec, ...]
    verdict: Verdict
    seed: int = 0
    freeze: tuple[str, ...] = ()

    def count(self, status: Filled) -> int:
        """How many target tensors have this status."""
        return sum(entry.status is status for entry in self.entries)

    @property
    def filled(self) -> tuple[Entry, ...]:
        """The target tensors whose elements come from the source."""
        return tuple(entry for entry in self.entries if entry.is_filled)

    @property
    def tensors(self) -> tuple[int, int]:
        """(filled, all) tensors of the target."""
        return len(self.filled), len(self.entries)

    @property
    def elements(self) -> tuple[int, int]:
        """(filled, all) elements of the target."""
        return sum(entry.spec.elements for entry in self.filled), sum(entry.spec.elements for entry in self.entries)

    @property
    def coverage(self) -> float:
        """Share of the target's elements that come from the source, 0 to 1."""
        filled, whole = self.elements
        return filled / whole if whole else 0.0

    @property
    def batchnorms(self) -> tuple[str, ...]:
        """Normalisation modules with running statistics all of whose parameters are frozen: they need `.eval()`."""
        frozen = {key.rpartition(".")[0] for key in self.freeze}
        return tuple(
            name for name, kind in self.target.modules.items() if name in frozen and "BatchNorm" in kind.split(".")[-1]
        )


def plan_transplant(
    source: Checkpoint,
    target: Target,
    *,
    recipe: Recipe | None = None,
    drop: Sequence[str] = (),
    mismatch: Mismatch = "skip",
    fits: Sequence[tuple[str, str]] = (),
    init: Sequence[tuple[str, str]] = (),
    vars: Mapping[str, float] | None = None,
    seed: int = 0,
    only_loaded: bool = False,
    wrap: str | None = None,
    strict: bool = False,
    min_coverage: float | None = None,
) -> Transplant:
    """Plan a target's state dict out of a source's weights.

    Args:
        source: the checkpoint.
        target: the model, from `ckptool.models.open_target` or `target_of`.
        recipe: how source keys become the target's; by default a wrapper or submodule prefix is seen through.
        drop: key patterns of source tensors to leave out.
        mismatch: what to do about tensors of another shape: leave the model's own, make it a problem, or make them fit
            by the method that is usual for such a tensor.
        fits: (key pattern of the target, "grid(prefix=1)"), which come before `mismatch`.
        init: (key pattern of the target, "normal(0.001)") for tensors that nothing fills, before the recipe's.
        vars: numbers for the recipe.
        seed: of the model's own init, where nothing fills a tensor.
        only_loaded: the output holds only what came from the source.
        wrap: the output nests the state dict under this key.
        strict: anything missing, unexpected or mismatched is unmet.
        min_coverage: the least share of the target's elements, 0 to 1; less is unmet.

    Raises:
        UsageError: a pattern matches nothing, or a rule cannot be understood.

    Example:
        >>> import ckptool
        >>> from ckptool.models import open_target
        >>> old = ckptool.open("fixtures/resnet18-102.pth")
        >>> done = plan_transplant(old, open_target("fixtures/resnet18.pth"))
        >>> done.tensors, done.count(Filled.MISSING), done.verdict.strict
        ((102, 122), 20, False)
    """
    rules = recipe or Recipe()
    initial = ModelInit(target, seed)
    mapped = _mapped(source, target, rules, drop, vars or {}, initial)
    chosen = [(Pattern.parse(pattern), _fit_named(text)) for pattern, text in fits]
    for pattern, _ in chosen:
        require_match(pattern, list(target.specs), "--fit", source.path)
    chooser = _Chooser(source, target, mapped.steps, mismatch, chosen, initial)
    chosen_entries, steps = chooser.all()
    entries = tuple(_with_ties(chosen_entries, target))
    inits = [(Pattern.parse(pattern), how) for pattern, how in (*init, *rules.init)]
    done = {step.target.key: step for step in steps}
    for entry in entries:
        if entry.key not in done and not only_loaded:
            done[entry.key] = _initial_step(entry, inits, done, initial, target)
    unexpected = tuple(step.target for key, step in mapped.steps.items() if key not in target.specs)
    ordered = tuple(done[key] for key in target.specs if key in done)
    used = {origin for step in ordered for origin in sources_of(step.value)}
    dropped = [*mapped.dropped, *_not_used(mapped.steps, used, target)]
    transplant = Transplant(
        Plan(
            (source,),
            ordered,
            tuple(dropped),
            (*mapped.problems, *chooser.problems),
            uses=mapped.uses,
            notes=(*target.notes, *mapped.notes),
            frame=None,
            module_versions=target.versions,
            wrap=wrap,
            request=f"transplant --into {target.name}",
        ),
        target,
        entries,
        unexpected,
        _verdict(source, target, mapped.steps),
        seed,
    )
    frozen = _frozen(transplant, rules)
    unmet = _unmet(transplant, rules, strict, min_coverage)
    return replace(transplant, freeze=frozen, plan=replace(transplant.plan, unmet=unmet))


@dataclass(frozen=True, slots=True)
class _Mapped:
    """The source under the target's names."""

    steps: dict[str, Step]
    dropped: tuple[Dropped, ...]
    problems: tuple[Problem, ...]
    uses: tuple[Use, ...]
    notes: tuple[Note, ...]


def _mapped(
    source: Checkpoint,
    target: Target,
    rules: Recipe,
    drop: Sequence[str],
    vars: Mapping[str, float],
    initial: ModelInit,
) -> _Mapped:
    specs = {key: tensor.spec for key, tensor in source.tensors.items()}
    dropped: list[Dropped] = []
    for text in drop:
        found = require_match(Pattern.parse(text), list(source), "--drop", source.path)
        dropped += [Dropped(Source(0, key), f'--drop "{text}"') for key in found if specs.pop(key, None) is not None]
    if not rules.stages:
        steps, notes = _by_name(specs, target)
        return _Mapped(steps, tuple(dropped), (), (), notes)
    numbers = resolve_vars(rules, json_lookup(source.path if source.path.is_dir() else source.path.parent), vars)

    def fit(fit: Fit, spec: TensorSpec, wanted: TensorSpec) -> Op:
        return _op(fit, spec, wanted, initial)

    made_of = expand(replace(rules, init=()), specs, vars=numbers, targets=target.specs, fit=fit)
    steps = {step.target.key: step for step in made_of.steps}
    return _Mapped(steps, (*dropped, *made_of.dropped), made_of.problems, made_of.uses, ())


def _by_name(specs: Specs, target: Target) -> tuple[dict[str, Step], tuple[Note, ...]]:
    """Equal keys, a prefix on either side seen through."""
    take, put = prefix_swap(
        {key: spec.shape for key, spec in specs.items()}, {key: spec.shape for key, spec in target.specs.items()}
    )
    why = "same key"
    notes: tuple[Note, ...] = ()
    if take or put:
        why = " and ".join(
            text for text in (f'without "{take}"' if take else "", f'under "{put}"' if put else "") if text
        )
        notes = (Note(f"source keys are taken {why}", f"as a rule: -r {rule_of(take, put)!r}"),)
    steps: dict[str, Step] = {}
    for key, spec in specs.items():
        new = put + key.removeprefix(take)
        steps[new] = Step(TensorSpec(new, spec.dtype, spec.shape), Source(0, key), why if new != key else "same key")
    return steps, notes


def rule_of(take: str, put: str) -> str:
    """A swap of prefixes as a rule of the recipe language.

    Example:
        >>> rule_of("module.", ""), rule_of("module.", "base.")
        ('module. ->', 'module.{k**} -> base.{k**}')
    """
    return f"{take}{{k**}} -> {put}{{k**}}" if put else f"{take} ->"


def _fit_named(text: str) -> Fit:
    fit = parse_fit(text)
    if fit is None:
        raise UsageError(f'"{text}" is no way to fit a tensor', hint='as in --fit "pos_embed=grid(prefix=1)"')
    return fit


def _op(fit: Fit, spec: TensorSpec, wanted: TensorSpec, initial: ModelInit) -> Op:
    """The op of a fit; where it keeps elements of the model's own, with these beside it."""
    op = fit_op(fit, spec, wanted)
    return Blended(op, Initial(wanted, initial)) if getattr(op, "needs_initial", False) else op


@dataclass(slots=True)
class _Chooser:
    """Decides for each target tensor what fills it."""

    source: Checkpoint
    target: Target
    steps: Mapping[str, Step]
    mismatch: Mismatch
    fits: Sequence[tuple[Pattern, Fit]]
    initial: ModelInit
    problems: list[Problem]

    def __init__(
        self,
        source: Checkpoint,
        target: Target,
        steps: Mapping[str, Step],
        mismatch: Mismatch,
        fits: Sequence[tuple[Pattern, Fit]],
        initial: ModelInit,
    ) -> None:
        self.source, self.target, self.steps = source, target, steps
        self.mismatch, self.fits, self.initial = mismatch, fits, initial
        self.problems = []

    def all(self) -> tuple[list[Entry], list[Step]]:
        entries: list[Entry] = []
        steps: list[Step] = []
        for key, spec in self.target.specs.items():
            step = self.steps.get(key)
            entry, filled = self._missing(spec) if step is None else self._chosen(spec, step)
            entries.append(entry)
            if filled is not None:
                steps.append(filled)
        return entries, steps

    def _missing(self, spec: TensorSpec) -> tuple[Entry, None]:
        kind = self.target.kinds.get(spec.key, "")
        if spec.key.endswith(_COUNTER):
            why = "a BatchNorm counter: harmless, training starts counting at zero"
            return Entry(spec, Filled.MISSING, kind="buffer", why=why, is_harmless=True), None
        why = "keeps the model's init" if kind != "buffer" else "a buffer: keeps what the model computes"
        return Entry(spec, Filled.MISSING, kind=kind, why=why, is_harmless=False), None

    def _chosen(self, spec: TensorSpec, step: Step) -> tuple[Entry, Step | None]:
        kind = self.target.kinds.get(spec.key, "")
        sources = tuple(dict.fromkeys(origin.key for origin in sources_of(step.value)))
        how, value, made_of = step.why, step.value, step.target
        status = Filled.FILLED
        if made_of.shape != spec.shape:
            fit = self._fit(spec, made_of)
            if fit is None:
                return self._mismatched(spec, made_of, sources, how, kind), None
            value = Apply(_op(fit, made_of, spec, self.initial), (value,))
            made_of = TensorSpec(spec.key, made_of.dtype, spec.shape)
            how, status = f"{how}, {fit.text}", Filled.FITTED
        elif any(isinstance(op, Blended) or "fit" in how for op in _ops(value)):
            status = Filled.FITTED
        if made_of.dtype != spec.dtype:
            if not _castable(made_of.dtype, spec.dtype):
                return self._mismatched(spec, made_of, sources, how, kind), None
            value = Apply(Cast(spec.dtype), (value,))
            status = Filled.CAST if status is Filled.FILLED else status
        entry = Entry(spec, status, sources, step.target.short, how, kind)
        return entry, Step(spec, value, how)

    def _fit(self, spec: TensorSpec, found: TensorSpec) -> Fit | None:
        named = next((fit for pattern, fit in self.fits if pattern.matches(spec.key)), None)
        if named is not None:
            return named
        return default_fit(spec.key, found, spec) if self.mismatch == "fit" else None

    def _mismatched(self, spec: TensorSpec, found: TensorSpec, sources: tuple[str, ...], how: str, kind: str) -> Entry:
        if self.mismatch != "skip":
            self.problems.append(
                Problem(
                    f"{spec.key} is {found.short} in the source and {spec.short} in the model",
                    '--mismatch skip keeps the model\'s own, --fit "PATTERN=METHOD(...)" says how to fit it',
                    (spec.key,),
                )
            )
        why = f"source {found.short}, model {spec.short}: keeps the model's init"
        return Entry(spec, Filled.MISMATCHED, sources, found.short, how, kind, why)


def _ops(value: object) -> list[Op]:
    found: list[Op] = []
    stack = [value]
    while stack:
        top = stack.pop()
        if isinstance(top, Apply):
            found.append(top.op)
            stack.extend(top.args)
    return found


def _castable(found: str, wanted: str) -> bool:
    """True if torch's copy_ between the dtypes keeps the meaning: floats to floats, integers to integers."""
    kinds = DTYPES[found].kind, DTYPES[wanted].kind
    integers = {"int", "uint", "bool"}
    return kinds == ("float", "float") or (kinds[0] in integers and kinds[1] in integers)


def _with_ties(entries: Sequence[Entry], target: Target) -> list[Entry]:
    """A key is not missing if the model has one tensor for it and another key that is filled."""
    filled = {entry.key for entry in entries if entry.is_filled}
    partner = {key: other for group in target.ties for key in group for other in group if other in filled}
    return [
        replace(entry, status=Filled.FILLED, how=f"tied to {partner[entry.key]}", why="")
        if entry.status is Filled.MISSING and entry.key in partner
        else entry
        for entry in entries
    ]


def _initial_step(
    entry: Entry, inits: Sequence[tuple[Pattern, str]], done: Mapping[str, Step], initial: ModelInit, target: Target
) -> Step:
    """What a tensor gets that nothing fills: its tied partner, what the recipe says, or the model's own init."""
    for group in target.ties:
        partner = next((key for key in group if entry.key in group and key in done), None)
        if partner is not None:
            return Step(entry.spec, done[partner].value, f"tied to {partner}", tied_to=partner)
    for pattern, how in inits:
        if not pattern.matches(entry.key) or how == "keep":
            continue
        if how.startswith("copy:"):
            origin = done.get(how[5:])
            if origin is None or origin.target.shape != entry.spec.shape:
                raise UsageError(f"init: {how[5:]} cannot be copied to {entry.key}: it must exist with the same shape")
            return Step(entry.spec, origin.value, f"init {how}")
        op = made(how, entry.spec)
        if op is not None:
            return Step(entry.spec, Apply(op, ()), f"init {how}")
    return Step(entry.spec, Apply(Initial(entry.spec, initial), ()), f"init of the model, seed {initial.seed}")


def _not_used(steps: Mapping[str, Step], used: set[Source], target: Target) -> list[Dropped]:
    """Source tensors that the output does not hold though no rule dropped them."""
    left: dict[Source, str] = {}
    for key, step in steps.items():
        for origin in sources_of(step.value):
            if origin not in used:
                left[origin] = "unexpected: the model has no such key" if key not in target.specs else "does not fit"
    return [Dropped(origin, why) for origin, why in left.items()]


def _verdict(source: Checkpoint, target: Target, steps: Mapping[str, Step]) -> Verdict:
    """What torch says of the source under its new names, its module versions included."""
    from ckptool.models import strict_verdict

    specs = {key: step.target for key, step in steps.items()}
    versions = source.module_versions
    if versions is not None:
        pairs = [(origin.key, key) for key, step in steps.items() for origin in sources_of(step.value)]
        versions = carried_versions(versions, pairs)
    return strict_verdict(target, specs, versions)


def _frozen(transplant: Transplant, rules: Recipe) -> tuple[str, ...]:
    """Parameters whose elements all came from the source, and those that the recipe freezes."""
    named = [Pattern.parse(text) for text in rules.freeze]
    frozen: list[str] = []
    for entry in transplant.entries:
        if entry.kind == "buffer":
            continue
        loaded = entry.status in (Filled.FILLED, Filled.CAST)
        if any(pattern.matches(entry.key) for pattern in named) or (loaded and not named):
            frozen.append(entry.key)
    return tuple(frozen)


def _unmet(transplant: Transplant, rules: Recipe, strict: bool, min_coverage: float | None) -> tuple[Problem, ...]:
    """What the gates say: --strict, --min-coverage, the recipe's expectations, and that something is loaded at all."""
    missing = [entry.key for entry in transplant.entries if entry.status is Filled.MISSING]
    mismatched = [entry.key for entry in transplant.entries if entry.status is Filled.MISMATCHED]
    unexpected = [spec.key for spec in transplant.unexpected]
    unmet: list[Problem] = []
    if strict:
        for what, keys in (("missing", missing), ("mismatched", mismatched), ("unexpected", unexpected)):
            if keys:
                unmet.append(Problem(f"--strict: {len(keys)} keys are {what}: {keys[0]}", keys=tuple(keys)))
    elif rules.expect.missing or rules.expect.unexpected:
        for what, keys, allowed in (
            ("missing", [*missing, *mismatched], rules.expect.missing),
            ("unexpected", unexpected, rules.expect.unexpected),
        ):
            patterns = [Pattern.parse(text) for text in allowed]
            wrong = [key for key in keys if not any(pattern.matches(key) for pattern in patterns)]
            if wrong:
                unmet.append(Problem(f"{len(wrong)} keys are {what}: {wrong[0]}", f"expect.{what}", tuple(wrong)))
    least = min_coverage if min_coverage is not None else rules.expect.coverage
    if least is not None and transplant.coverage < least:
        unmet.append(Problem(f"coverage is {transplant.coverage:.2%} of the elements, not {least:.2%}"))
    return tuple(unmet)


def require_loaded(transplant: Transplant) -> None:
    """Nothing loaded is an error, whatever else was asked.

    Raises:
        CkptError: if no tensor of the target is filled.
    """
    if not transplant.filled:
        source = next(iter(transplant.plan.inputs[0]), "")
        wanted = next(iter(transplant.target.specs), "")
        raise CkptError(
            f"nothing would be loaded: no source key is a key of {transplant.target.name}",
            hint=f'the source has "{source}", the model "{wanted}"; give a rule: -r "FROM -> TO"',
            path=transplant.plan.inputs[0].path,
        )
