"""The reasons and the command of a plan in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from ckptool.core.checkpoint import Checkpoint, input_names
from ckptool.core.counts import many
from ckptool.core.plan import Command
from ckptool.core.reasons import (
    Adapted,
    ByHook,
    ByOption,
    ByPatch,
    ByRules,
    ByTokens,
    ConfigEdited,
    Decoded,
    DoesNotFit,
    Follows,
    FromInput,
    Init,
    Kept,
    LeftToModel,
    Mixed,
    NoPlace,
    NoSuchKey,
    NotCarried,
    NotInAll,
    NotKept,
    NotTaken,
    NotUsed,
    OnlyTensors,
    OnlyTensorsRead,
    OtherPlace,
    OwnTensor,
    Reason,
    RecipeTie,
    ReplacedBy,
    RuleName,
    SameKey,
    Tie,
    TooFew,
    TrainedWhole,
    Unmatched,
    Unmixable,
    Unmixed,
    WeightsOnly,
)
from ckptool.core.spec import DTYPES, TensorSpec

_PLAIN: dict[type[Reason], str] = {
    Kept: "kept",
    NotKept: "not kept",
    ByHook: "a load hook of the model",
    ByPatch: "patched",
    Unmatched: "no rule matches it",
    NotUsed: "nothing of it is used",
    RecipeTie: "tie",
    NotInAll: "not in every input with one shape",
    Unmixable: "not used: another shape or no base",
    LeftToModel: "stays as it is in the model",
    NoSuchKey: "the model has no such key",
    DoesNotFit: "does not fit",
    OtherPlace: "same key, but shapes place it elsewhere",
    Follows: "follows the weights",
    OnlyTensors: "safetensors holds tensors only",
    NoPlace: "torch files have no place for it",
    NotTaken: "only what the first file holds is kept",
    WeightsOnly: "only the weights are taken",
    OnlyTensorsRead: "only tensors are read from this format",
    NotCarried: "only a folder output carries the other files of a folder",
}


def _recipe(rule: RuleName) -> tuple[str, bool]:
    """What rules have in common whose numbers are said together; those that have none are alone."""
    return (rule.recipe, rule.backwards) if rule.number else (str(rule), False)


def _rules_of(recipe: tuple[str, bool], rules: Iterable[RuleName]) -> str:
    first, *others = rules
    if not others or not first.number:
        return str(first)
    numbers = ", ".join(str(rule.number) for rule in (first, *others))
    return " ".join(filter(None, (recipe[0], f"rules {numbers}", "backwards" if recipe[1] else "")))


def reason_text(reason: Reason, inputs: Sequence[Checkpoint] = ()) -> str:
    """A reason in words.

    Args:
        reason: it.
        inputs: those of the plan, for reasons that name one.

    Example:
        >>> from ckptool.core.reasons import RuleName
        >>> reason_text(ByRules((RuleName(number=1), RuleName("ibn.toml", 2))))
        'rule 1, ibn.toml rule 2'
        >>> reason_text(ByRules(tuple(RuleName("match", number) for number in (6, 7, 8))))
        'match rules 6, 7, 8'
    """
    match reason:
        case ByOption(option, value):
            return f'{option} "{value}"' if option in ("--drop", "--keep") else f"{option} {value}".rstrip()
        case Decoded(scheme, _, dtype):
            return f"{scheme} → {DTYPES[dtype].short}"
        case ByRules(rules):
            return ", ".join(_rules_of(recipe, names) for recipe, names in groupby(rules, _recipe))
        case ByTokens(copied, new):
            return f"{many(copied, 'row')} by token" + (f", {new:,} new: the mean" if new else "")
        case Tie(key, None):
            return f"tied to {key}"
        case Tie(key, of) if of is not None:
            return f"{reason_text(of, inputs)}, tied to {key}"
        case Init(value):
            return f"init {value}"
        case FromInput() | ReplacedBy() | Unmixed() | TooFew() | TrainedWhole():
            return _from_input(reason, input_names(inputs), inputs)
        case Mixed(notation, partial):
            return f"{notation} of those that have it" if partial else notation
        case Adapted(notation):
            return notation
        case SameKey(removed, added):
            without = f'without "{removed}"' if removed else ""
            return ", ".join(filter(None, ("same key", without, f'under "{added[:-1]}"' if added else "")))
        case ConfigEdited(changes):
            return ", ".join(f"{name} {old} → {new}" if new else f"without {name}" for name, old, new in changes)
        case OwnTensor(kind, seed):
            return {
                "checkpoint": "kept from the target",
                "counter": "a BatchNorm counter, starts at zero: harmless",
                "statistics": "running statistics of a new model",
                "buffer": "a buffer that the model makes",
                "init": f"init of the model, seed {seed}",
            }[kind]
        case _:
            return _PLAIN[type(reason)]


def _from_input(
    reason: FromInput | ReplacedBy | Unmixed | TooFew | TrainedWhole, names: Sequence[str], inputs: Sequence[Checkpoint]
) -> str:
    name = names[reason.input]
    match reason:
        case FromInput(_, replaced):
            before = ", ".join(f"{names[number]}{_spec_text(spec)}" for number, spec in replaced)
            return f"from {name}, replaces {before}" if before else f"only in {name}"
        case ReplacedBy():
            return f"replaced by {name}"
        case Unmixed(_, kind):
            return f"from {inputs[reason.input].path.name} ({kind} are never averaged)"
        case TooFew():
            return f"from {inputs[reason.input].path.name} (not in every input)"
        case TrainedWhole(_, cast):
            option = f", {reason_text(cast)}" if cast is not None else ""
            return f"the adapter's copy, from {inputs[reason.input].path.name}{option}"


def _spec_text(spec: TensorSpec | None) -> str:
    return "" if spec is None else f" ({spec.short})"


def dropped_text(reason: Reason, inputs: Sequence[Checkpoint] = ()) -> str:
    """``dropped by --drop "fc.*"``, ``dropped (no rule matches it)``"""
    match reason:
        case ByOption() | ByRules():
            return f"dropped by {reason_text(reason)}"
        case NotKept():
            return "dropped (no --keep matches it)"
        case _:
            return f"dropped ({reason_text(reason, inputs)})"


def command_text(command: Command) -> str:
    """``merge --method linear``"""
    return " ".join((command.name, *command.arguments))
