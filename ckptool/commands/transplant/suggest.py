"""What would load more: options that headers prove to help."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from ckptool.commands.transplant.copies import copy_rules
from ckptool.commands.transplant.evidence import doubts, is_plain, places
from ckptool.commands.transplant.names import matched, meeting, under_target_names
from ckptool.commands.transplant.result import Transplant
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.counts import listed
from ckptool.core.errors import CkptError
from ckptool.core.format import Format
from ckptool.core.keys import Pattern
from ckptool.core.plan import sources_of
from ckptool.core.spec import TensorSpec
from ckptool.core.tensor import Tensor
from ckptool.facts.architecture import Architecture, Training
from ckptool.facts.registry import facts_of
from ckptool.fits import default_fit, fit_op
from ckptool.fits.args import parse_fit
from ckptool.matching.prefixes import Swap
from ckptool.matching.result import Confidence
from ckptool.models import Target
from ckptool.models.entries import Filled
from ckptool.models.own_init import ModelInit
from ckptool.recipes.fitting import fitting_recipes
from ckptool.recipes.recipe import Recipe, builtin_recipes, combine, load_recipe, recipe_of

_MANY = 5_000  # tensors; above that built-in recipes are tried whose rules fit keys of some form
_MOST = 200_000  # above that none is
_MANY_TO_MATCH = 1_000
_MANY_TOWERS = 3
_ENOUGH = 0.9  # of what is missing; what is left are new heads, and no second recipe is tried
_FEW_TENSORS = 4  # of a layer; a module that is worth a rule has more
_GENERAL = ("strip-wrappers",)  # what is done without it, too


@dataclass(frozen=True, slots=True)
class Suggestion:
    """An option that fills more.

    Attributes:
        options: words of the command line, ("-r", "resnet-to-ibn").
        tensors: how many tensors of the model it fills that are not filled now.
        why: what it rests on, as a further clause; "" where the options say it.
        goes_first: the options are rules that come before those that were given.
    """

    options: tuple[str, ...]
    tensors: int
    why: str = ""
    goes_first: bool = False


def suggestions(done: Transplant) -> tuple[Suggestion, ...]:
    """The options that would fill more of the model, decided on headers: a recipe or a match, and a usual fit.

    A built-in recipe counts if it works out on these keys. Rules that were given are not doubted.

    Example:
        >>> import ckptool
        >>> from ckptool.models import open_target
        >>> from ckptool.commands.transplant.planning import plan_transplant
        >>> target = open_target("fixtures/resnet18.pth")
        >>> suggestions(plan_transplant(ckptool.open("fixtures/resnet18.pth"), target))
        ()
    """
    if done.plan.problems:
        return tuple(_first_of_several(done))
    return (*(tuple(_names(done)) or _copied(done)), *_fit(done))


def _names(done: Transplant) -> Iterator[Suggestion]:
    """The built-in recipe that fills the most; where there is none, the rules that a match finds."""
    if done.asked.recipe.stages or done.match is not None or not done.wants_names:
        return
    dropped = {row.source.key for row in done.plan.dropped if row.source.input == 0} - _unused(done)
    specs = {key: tensor.spec for key, tensor in done.source.items() if key not in dropped}
    if max(len(specs), len(done.target.specs)) > _MOST:
        return
    now = _filled(done, done.mapped)
    if max(len(specs), len(done.target.specs)) > _MANY:
        some = (Suggestion(options, _gain(done, specs, recipe, now)) for options, recipe in fitting_recipes(specs))
        best = max(some, key=lambda suggestion: suggestion.tensors, default=None)
        if best is not None and best.tensors > 0:
            yield best
        return
    if done.advice:
        gain = _gain(done, specs, recipe_of(done.advice), now)
        if gain > 0:
            yield Suggestion(tuple(word for rule in done.advice for word in ("-r", rule)), gain)
            return
    known = [Suggestion(("-r", name), _gain(done, specs, load_recipe(name), now)) for name in builtin_recipes()]
    back = ((options, recipe) for options, recipe in fitting_recipes(specs) if "--reverse" in options)
    known += [Suggestion(options, _gain(done, specs, recipe, now)) for options, recipe in back]
    tried = [*_parts(done, specs, now), *known, *_towers(done, specs, now), *_branches(done, specs, now)]
    best = max(tried, key=lambda suggestion: suggestion.tensors)
    left = len(_wanted(done)) - now
    if best in known and "--reverse" not in best.options and 0 < best.tensors < _ENOUGH * left:
        best = max([best, *_chained(done, specs, best, now)], key=lambda suggestion: suggestion.tensors)
    if 2 * best.tensors < left and is_small(done) and (done.unexpected or done.withheld):
        initial = ModelInit(done.target)
        found = matched(done.source, specs, done.target, Recipe(), initial, Confidence.ALIGNED)
        gain = _gain(done, specs, found.recipe, now, as_they_are=True)
        best = max(best, Suggestion(("--match", "auto"), gain), key=lambda suggestion: suggestion.tensors)
    if best.tensors > 0:
        yield best


def _towers(done: Transplant, specs: dict[str, TensorSpec], now: int) -> Iterator[Suggestion]:
    """A built-in recipe on a known model that is a part of the source."""
    prefixes = dict.fromkeys(prefix for prefix in _model_prefixes(done.source) if prefix and is_plain(prefix))
    for prefix in list(prefixes)[:_MANY_TOWERS]:
        for name in builtin_recipes():
            if name not in _GENERAL:
                rules = (f"{prefix}{{k**}} -> {{k}}", "?{k**} -> !", name)
                yield Suggestion(_rules(rules), _gain(done, specs, recipe_of(rules), now))


def _chained(done: Transplant, specs: dict[str, TensorSpec], first: Suggestion, now: int) -> Iterator[Suggestion]:
    """A built-in recipe, and another one behind it."""
    for name in builtin_recipes():
        if name not in (*first.options, *_GENERAL):
            rules = (*first.options[1::2], name)
            yield Suggestion(_rules(rules), _gain(done, specs, recipe_of(rules), now))


def _parts(done: Transplant, specs: dict[str, TensorSpec], now: int) -> Iterator[Suggestion]:
    """The part of the source that has the most of a part of the model, and nothing of the rest; then with a recipe."""
    fitting = _fitting(done, specs)
    most = max(fitting.values(), default=0)
    if most <= now:
        return
    taken = tuple(fact.take for fact in facts_of(done.source) if isinstance(fact, Training))
    equal = [pair for pair, many in fitting.items() if many == most]
    take, _ = min(equal, key=lambda pair: (not pair[0].startswith(taken), equal.index(pair)))
    takes = list(dict.fromkeys([take, *(each for each, _ in equal)]))
    where = " and ".join(f'"{prefix}"' for prefix in takes)
    why = f"; the source has them {len(takes)} times, under {where}" if len(takes) > 1 else ""
    puts = list(dict.fromkeys(other for each, other in equal if each == take))
    if len(puts) > 1:
        places_put = " and ".join(f'"{prefix}"' for prefix in puts)
        why += f"; the model takes them {len(puts)} times, under {places_put}"
    if not all(map(is_plain, (take, *puts))):
        return
    rest = ("?{k**} -> !",) if take else ()
    bare, whole = ((f"{take}{{k**}} -> {to}", *rest) for to in ("{k}", ", ".join(f"{to}{{k}}" for to in puts)))
    found = [Suggestion(_rules(rules), _gain(done, specs, recipe_of(rules), now), why) for rules in (bare, whole)]
    best = max(found, key=lambda suggestion: suggestion.tensors)
    yield best
    if 0 < best.tensors < _ENOUGH * (len(_wanted(done)) - now):
        first = bare if take else ()
        last = (f"{{k**}} -> {', '.join(f'{to}{{k}}' for to in puts)}",) if len(puts) > 1 else ()
        combined = [(*first, name, *last) for name in builtin_recipes() if name not in _GENERAL]
        yield from (
            Suggestion(_rules(rules), gain, why)
            for rules in combined
            if (gain := _gain(done, specs, recipe_of(rules), now)) > best.tensors
        )


def _branches(done: Transplant, specs: dict[str, TensorSpec], now: int) -> Iterator[Suggestion]:
    """Modules of the source that nothing takes, each into all places of the model that have its names and shapes.

    A stage that a model has several times, as global and local branches, is such a module.
    """
    wanted = done.target.specs
    fitting = {} if done.swap else _fitting(done, specs)
    swap = done.swap or Swap(*max(fitting, key=lambda pair: fitting[pair], default=("", "")))
    met = {key for key, spec in specs.items() if (name := swap.key(key)) in wanted and wanted[name].shape == spec.shape}
    filled = {swap.key(key) for key in met}
    missing = {key: spec.shape for key, spec in wanted.items() if key not in filled}
    rules: list[str] = []
    why: list[str] = []
    for module in _whole_modules([key for key in specs if key not in met], met):
        names = {key[len(module) :]: specs[key].shape for key in specs if key.startswith(module)}
        if len(names) <= _FEW_TENSORS or not is_plain(module):
            continue
        puts = [
            put
            for put, inside in places(missing, names).items()
            if len(inside) == len(names) and all(missing[put + name] == names[name] for name in names)
        ]
        if puts and all(map(is_plain, puts)):
            rules.append(f"{module}{{k**}} -> {', '.join(f'{put}{{k}}' for put in puts)}")
            places_put = " and ".join(f'"{put}"' for put in puts)
            why.append(f'"{module}" into {places_put}')
    if rules:
        found = (*rules, *([swap.rule] if swap.put else []))
        yield Suggestion(_rules(found), _gain(done, specs, recipe_of(found), now), f": {listed(why)}")


def _copied(done: Transplant) -> Iterator[Suggestion]:
    """Blocks of the source into modules of the model that are copies of them besides."""
    if done.asked.recipe.stages or done.match is not None or len(done.target.specs) > _MANY:
        return
    found = list(copy_rules(done))
    if found:
        rules, why, gains = zip(*found, strict=True)
        options = _rules((*rules, *([done.swap.rule] if done.swap.put else [])))
        yield Suggestion(options, sum(gains), f", as copies: {listed(why)}")


def _fitting(done: Transplant, specs: dict[str, TensorSpec]) -> dict[tuple[str, str], int]:
    """How many tensors fit if what is under a prefix of the source goes under a prefix of the model."""
    wanted = done.target.specs
    fitting: dict[tuple[str, str], int] = {}
    for put in dict.fromkeys(["", done.swap.put, *_model_prefixes(as_checkpoint(done.target))]):
        names = {key[len(put) :]: spec.shape for key, spec in wanted.items() if key.startswith(put)}
        for take, inside in places(specs, names).items():
            if take or put:
                fitting[take, put] = sum(specs[take + name].shape == names[name] for name in inside)
    return fitting


def _whole_modules(keys: Sequence[str], others: Collection[str]) -> list[str]:
    """The outermost modules of some keys, with their last dots, that no other key is in."""
    taken = {key[: at + 1] for key in others for at, char in enumerate(key) if char == "."}
    found: dict[str, None] = {}
    for key in keys:
        modules = (key[: at + 1] for at, char in enumerate(key) if char == ".")
        module = next((module for module in modules if module not in taken), None)
        if module is not None:
            found[module] = None
    return list(found)


def _first_of_several(done: Transplant) -> Iterator[Suggestion]:
    """Where given rules find nothing because the source holds its model several times: the part to take before them."""
    if not done.asked.recipe.stages or done.match is not None or done.filled or len(done.source) > _MANY:
        return
    specs = {key: tensor.spec for key, tensor in done.source.items()}
    taken = tuple(fact.take for fact in facts_of(done.source) if isinstance(fact, Training))
    prefixes = [prefix for prefix in dict.fromkeys([*taken, *_model_prefixes(done.source)]) if prefix]
    found = []
    for prefix in filter(is_plain, prefixes[:_MANY_TOWERS]):
        rules = (f"{prefix}{{k**}} -> {{k}}", "?{k**} -> !")
        recipe = combine([recipe_of(rules), done.asked.recipe])
        found.append(Suggestion(_rules(rules), _gain(done, specs, recipe, 0), goes_first=True))
    best = max(found, key=lambda suggestion: suggestion.tensors, default=None)
    if best is not None and best.tensors > 0:
        under = " and ".join(f'"{prefix}"' for prefix in prefixes)
        why = f"; the source has the model under {under}"
        yield replace(best, why=why)


def _rules(rules: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for rule in rules for word in ("-r", rule))


def _model_prefixes(checkpoint: Checkpoint) -> list[str]:
    """Where known models are in a checkpoint."""
    return [prefix for fact in facts_of(checkpoint) if isinstance(fact, Architecture) for prefix in fact.prefixes]


def is_small(done: Transplant) -> bool:
    """True if a match is tried before anything is said."""
    return max(len(done.source), len(done.target.specs)) <= _MANY_TO_MATCH


def model_names(checkpoint: Checkpoint) -> str:
    """``resnet50 (torchvision names)``; "" for what is not known."""
    known = dict.fromkeys(fact.plain for fact in facts_of(checkpoint) if isinstance(fact, Architecture))
    return " and ".join(known)


def as_checkpoint(target: Target) -> Checkpoint:
    """A model's keys and shapes as those of a file."""
    if target.checkpoint is not None:
        return target.checkpoint
    tensors = {key: Tensor(spec) for key, spec in target.specs.items()}
    return Checkpoint(PurePath(target.name), Format("safetensors"), tensors)


def _unused(done: Transplant) -> set[str]:
    """Source keys that are dropped for no other reason than that nothing takes them."""
    withheld = set(done.withheld)
    names = {spec.key for spec in done.unexpected} | {entry.key for entry in done.having(Filled.MISMATCHED)}
    return {key for key in done.source if key in withheld or key in names or done.swap.key(key) in names}


def _filled(done: Transplant, specs: Mapping[str, TensorSpec]) -> int:
    """How many tensors of the model some specs fill, those that are made to fit as it was asked for among them."""
    wanted = {key: done.target.specs[key] for key in _wanted(done)}
    fitted = sum(_is_fitted(done, wanted[key], spec) for key, spec in specs.items() if key in wanted)
    return meeting(specs, wanted) + fitted


def _is_fitted(done: Transplant, wanted: TensorSpec, found: TensorSpec) -> bool:
    """True for a tensor of another shape that a named fit, or the usual one, makes fit."""
    if found.shape == wanted.shape:
        return False
    named = next((text for pattern, text in done.asked.fits if Pattern.parse(pattern).matches(wanted.key)), None)
    if named is None:
        return done.asked.mismatch == "fit" and default_fit(wanted.key, found, wanted, done.grids) is not None
    fit = parse_fit(named)
    try:
        return fit is not None and fit_op(fit, found, wanted) is not None
    except CkptError:
        return False


def _wanted(done: Transplant) -> set[str]:
    """What is to be filled; counters only where they are all that is missing, and torch wants them."""
    has_weights_missing = any(not entry.is_harmless for entry in done.having(Filled.MISSING))
    counters = {entry.key for entry in done.entries if entry.is_counter}
    return set(done.target.specs) - (counters if has_weights_missing else counters - set(done.as_it_is.missing))


def _gain(
    done: Transplant, specs: dict[str, TensorSpec], recipe: Recipe, now: int, *, as_they_are: bool = False
) -> int:
    """How many more tensors a recipe fills; 0 where it does not work out."""
    if recipe.source_files:
        return 0
    try:
        initial = ModelInit(done.target)
        made = under_target_names(done.source, specs, done.target, recipe, initial, as_they_are=as_they_are, near=False)
    except CkptError:
        return 0  # a number that is not there, a precondition that is not met
    if made.problems:
        return 0
    doubted = {done.swap.key(key): key for key in done.withheld}
    results = {
        key: step.target
        for key, step in made.steps.items()
        if key not in doubted or all(origin.key != doubted[key] for origin in sources_of(step.value))
    }
    if not as_they_are:
        shapes = {key: spec.shape for key, spec in results.items()}
        found = doubts(shapes, {key: spec.shape for key, spec in done.target.specs.items()}, Swap())
        results = {key: spec for key, spec in results.items() if not any(key in doubt.keys for doubt in found)}
    return _filled(done, results) - now


def _fit(done: Transplant) -> Iterator[Suggestion]:
    """``--mismatch fit`` where some tensors have a usual fit."""
    if done.asked.mismatch != "skip":
        return
    entries = [entry for entry in done.having(Filled.MISMATCHED) if entry.key in done.mapped]
    gain = sum(default_fit(entry.key, done.mapped[entry.key], entry.spec, done.grids) is not None for entry in entries)
    if gain:
        yield Suggestion(("--mismatch", "fit"), gain)
