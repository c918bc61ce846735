from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckptool.commands.checks import Rule
from ckptool.commands.checks.bases import Base
from ckptool.commands.checks.case import Case, Found, asked_by, columns
from ckptool.commands.checks.finding import Place
from ckptool.commands.checks.settings import Key, PolicyReader
from ckptool.core.address import address_of
from ckptool.core.counts import many
from ckptool.core.keys import wrapper_prefix
from ckptool.core.shell import shell_quote
from ckptool.core.spec import TensorSpec
from ckptool.facts.counters import promised_counters
from ckptool.facts.entries import entries_of
from ckptool.storage.paths import is_file

if TYPE_CHECKING:
    from ckptool.commands.transplant.suggest import Suggestion

_COUNTER = "num_batches_tracked"
Specs = Mapping[str, TensorSpec]


INTO: Key[str] = Key("into", PolicyReader.text)
MODEL_ARGS: Key[Mapping[str, Any]] = Key("model-args", PolicyReader.table)
RECIPE: Key[tuple[str, ...]] = Key("recipe", PolicyReader.texts)
RULE = Rule("fits", needs=(INTO, RECIPE), also=(MODEL_ARGS,), allows=("missing", "unexpected", "mismatched"), order=50)


def fits(case: Case) -> Iterator[Found]:
    """The checkpoint does not fit the model, the other checkpoint or the recipe that the policy names.

    Found: keys that the model has and the file has not (missing), keys of the file that the model does not know
    (unexpected), and keys of another shape (mismatched). For a model it is torch's own verdict, from a real
    load_state_dict(strict=True) on the meta device. BatchNorm counters are left out where they do no harm: torch fills
    them in for files that do not promise them. With a recipe, its rules are applied to the keys first, and a rule that
    does not work out is found too.

    Why: load_state_dict(strict=False) says nothing of a layer that stayed at random.

    What to do: ckptool transplant shows what fits and makes the rest fit; ckptool remap renames keys. What is meant to
    differ, such as a new head, goes into an allow-list.

    Policy: it runs where `into` or `recipe` is set. `into` is a checkpoint (relative to the policy), a model of
    torchvision, or a model of your own code, which runs with --trust-policy only.

        into = "torchvision:resnet18"
        model-args = {num_classes = 751}
        allow.missing = ["fc.*"]
    """
    specs: Specs = {key: tensor.spec for key, tensor in case.checkpoint.items()}
    versions, entries = case.checkpoint.module_versions, entries_of(case.checkpoint)
    if (recipe := case.settings.get(RECIPE)) is not None:
        with asked_by(recipe):
            (found, specs, versions), entries = _remapped(case, recipe.value), ()
        yield from found
    into = case.settings.get(INTO)
    if into is None:
        return
    arguments = {} if (given := case.settings.get(MODEL_ARGS)) is None else given.value
    if not into.is_typed and not case.policy.is_trusted:
        with asked_by(into):
            code = _code_of(case, into.value)
        if code:
            text = f"{into.value} names code, and a policy runs none: {code} was not imported"
            yield Found(text, help="--trust-policy lets this policy run it", place=into.place, short="not trusted")
            return
    with asked_by(into):
        base = case.bases.base(into.value, arguments, case.policy.folder)
    yield from _told(case, base, specs, _compared(base, specs, versions, entries), into.place)


def _code_of(case: Case, spec: str) -> str:
    """The code that a model of the policy would run; an error where its file lies outside of the policy's folder."""
    if address_of(spec) is not None:
        case.policy.path(spec)
    code = case.bases.code_of(spec, case.policy.folder)
    if not code:
        prefix, _, name = spec.partition(":")
        case.policy.path(name if prefix == "hf" else spec)
    return code


def _told(case: Case, base: Base, specs: Specs, misfit: _Misfit, place: Place) -> Iterator[Found]:
    side, help = "model" if base.model else "there", _help(case, base, specs)
    for kind, keys, one, more in (
        ("mismatched", misfit.mismatched, f"tensor does not fit {base.name}", f"tensors do not fit {base.name}"),
        ("missing", misfit.missing, f"key of {base.name} is missing", f"keys of {base.name} are missing"),
        (
            "unexpected",
            misfit.unexpected,
            f"key that {base.name} does not have",
            f"keys that {base.name} does not have",
        ),
    ):
        left = case.refused(kind, keys)
        if left:
            rows = ((key, _short(specs, key), _short(base.specs, key, f"{side} ")) for key in left)
            text = many(len(left), one, more)
            yield Found(text, left, columns(rows), help, place, short=f"{len(left):,} {kind}")
    if misfit.refusal:
        yield Found(f"{base.name} refuses it", (), tuple(misfit.refusal.splitlines()), help, place, short="refused")


@dataclass(frozen=True, slots=True)
class _Misfit:
    """What stands between a state and a model; `refusal` is said by models that check in their own way."""

    missing: Sequence[str]
    unexpected: Sequence[str]
    mismatched: Sequence[str]
    refusal: str = ""


def _remapped(case: Case, recipe: Sequence[str]) -> tuple[list[Found], Specs, Mapping[str, int] | None]:
    """What a recipe makes of the keys, and where it does not work out."""
    from ckptool.commands.remap import plan_remap
    from ckptool.recipes.recipe import recipe_of

    names = [str(case.path_of(name)) if is_file(case.policy.folder / name) else name for name in recipe]
    plan = plan_remap(case.checkpoint, recipe_of(names))
    found = [
        Found(problem.message, problem.keys, tuple(problem.keys), problem.hint, case.place("recipe"), short="recipe")
        for problem in plan.problems
    ]
    return found, {step.target.key: step.target for step in plan.steps}, plan.module_versions


def _compared(base: Base, specs: Specs, versions: Mapping[str, int] | None, entries: tuple[str, ...]) -> _Misfit:
    if base.model is not None:
        from ckptool.models import strict_verdict

        verdict = strict_verdict(base.model, specs, versions, entries)
        is_told = verdict.strict or verdict.missing or verdict.unexpected or verdict.mismatched
        return _Misfit(verdict.missing, verdict.unexpected, verdict.mismatched, "" if is_told else verdict.message)
    missing = [key for key in base.specs if key not in specs]
    counters = [key.rpartition(".")[0] for key in missing if _is_counter(key)]
    insisted = {f"{module}.{_COUNTER}" for module in promised_counters(versions, counters)}
    return _Misfit(
        [key for key in missing if not _is_counter(key) or key in insisted],
        [key for key in specs if key not in base.specs and not _is_counter(key)],
        [key for key in specs if key in base.specs and specs[key].shape != base.specs[key].shape],
    )


def _is_counter(key: str) -> bool:
    return key.rpartition(".")[2] == _COUNTER


def _short(specs: Specs, key: str, side: str = "") -> str:
    """Dtype and shape; "" where it is not there, and for a key that a model's hook has made up while loading."""
    return f"{side}{specs[key].short}" if key in specs else ""


def _help(case: Case, base: Base, specs: Specs) -> str:
    prefix = wrapper_prefix(specs)
    if prefix and not wrapper_prefix(base.specs):
        return f"ckptool remap {case.word} -r strip-wrappers -o PLAIN"
    into = shell_quote(base.name if base.model else str(address_of(base.name) or case.path_of(base.name)))
    helps = [word for found in _suggested(case, base) for word in found.options]
    return " ".join([f"ckptool transplant {case.word} --into {into}", *map(shell_quote, helps)])


def _suggested(case: Case, base: Base) -> Sequence[Suggestion]:
    """Options that would load more, where no recipe is set."""
    from ckptool.commands.transplant.planning import plan_transplant
    from ckptool.commands.transplant.suggest import suggestions
    from ckptool.models import open_target

    if case.settings.get(RECIPE) is not None:
        return ()
    target = base.model or open_target(str(address_of(base.name) or case.path_of(base.name)))
    return suggestions(plan_transplant(case.checkpoint, target))
