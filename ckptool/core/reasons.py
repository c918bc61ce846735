"""Why a plan does what it does with a tensor: values. `ckptool.report.reasons` makes words of them.

A reason names inputs by their number in the plan, rules by their `RuleName`, and tensors by their key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from ckptool.core.spec import TensorSpec


@dataclass(frozen=True, slots=True)
class RuleName:
    """Which rule of which recipe; its text is the name that messages use.

    Attributes:
        recipe: name of the recipe; "" for the command line. Without a number it names what made the rule.
        number: from 1; 0 for a rule that stands alone.
        backwards: it is the reverse of that rule.

    Example:
        >>> str(RuleName(number=2)), str(RuleName("ibn.toml", 1, True)), str(RuleName()), str(RuleName("tie"))
        ('rule 2', 'ibn.toml rule 1 backwards', 'rule', 'tie')
    """

    recipe: str = ""
    number: int = 0
    backwards: bool = False

    def __str__(self) -> str:
        rule = f"rule {self.number}" if self.number else "" if self.recipe else "rule"
        return " ".join(filter(None, (self.recipe, rule, "backwards" if self.backwards else "")))


FOUND = "match"
"""The recipe's name in the names of rules that were found for a match."""


# ---------------------------------------------------------------------------------------------- of any command


@dataclass(frozen=True, slots=True)
class Kept:
    """Nothing says otherwise."""


@dataclass(frozen=True, slots=True)
class ByOption:
    """An option of the command says so: ``--dtype bfloat16``, ``--drop "fc.*"``."""

    option: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class ByPatch:
    """``--patch``: a patch changes it, or brings it."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """``--dequantize``: it is stored as codes of this scheme, in so many bytes, and becomes numbers of this dtype."""

    scheme: str
    nbytes: int
    dtype: str


@dataclass(frozen=True, slots=True)
class NotKept:
    """Other keys are kept by ``--keep``, this one by none."""


@dataclass(frozen=True, slots=True)
class Tie:
    """It is one tensor with another key of the output.

    Attributes:
        key: the other key.
        reason: of that key's tensor, where it is worth saying.
    """

    key: str
    reason: Reason | None = None


# ---------------------------------------------------------------------------------------------- of recipes


@dataclass(frozen=True, slots=True)
class ByRules:
    """Rules of recipes, in the order in which they apply."""

    rules: tuple[RuleName, ...]


@dataclass(frozen=True, slots=True)
class ByTokens:
    """``--tokenizer``: its rows follow their tokens.

    Attributes:
        copied: how many rows are of tokens that both tokenizers have.
        new: how many are the mean of all old rows.
    """

    copied: int
    new: int


@dataclass(frozen=True, slots=True)
class Unmatched:
    """No rule matches the key, and the recipe says ``unmatched = "drop"``."""


@dataclass(frozen=True, slots=True)
class NotUsed:
    """No tensor of the output is made of it."""


@dataclass(frozen=True, slots=True)
class RecipeTie:
    """The recipe's ``tie`` makes it one tensor with this key."""

    key: str


@dataclass(frozen=True, slots=True)
class Init:
    """An ``init`` of a recipe or of the command line: "zeros", "normal(0.01)", "copy:KEY"."""

    value: str


# ---------------------------------------------------------------------------------------------- of merges


@dataclass(frozen=True, slots=True)
class FromInput:
    """A union takes it from one input.

    Attributes:
        input: which.
        replaced: the earlier inputs that have the key, each with its spec where dtype or shape differ.
    """

    input: int
    replaced: tuple[tuple[int, TensorSpec | None], ...] = ()


@dataclass(frozen=True, slots=True)
class ReplacedBy:
    """A later input has the key."""

    input: int


@dataclass(frozen=True, slots=True)
class Mixed:
    """A merge method makes it.

    Attributes:
        notation: the method with its weights and options, "linear(2, 6)".
        partial: not every input has it.
    """

    notation: str
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Unmixed:
    """A merge copies it from one input, since such tensors are never averaged.

    Attributes:
        input: which.
        kind: what such tensors are: "integers", "sparse".
    """

    input: int
    kind: str


@dataclass(frozen=True, slots=True)
class TooFew:
    """A merge copies it from one input, since too few have it."""

    input: int


@dataclass(frozen=True, slots=True)
class NotInAll:
    """Not every input has the key with one shape."""


@dataclass(frozen=True, slots=True)
class Unmixable:
    """It has another shape than the others, or no base."""


@dataclass(frozen=True, slots=True)
class Adapted:
    """An adapter is added to it, with the op of this notation."""

    notation: str


@dataclass(frozen=True, slots=True)
class TrainedWhole:
    """An adapter holds all of it.

    Attributes:
        input: the adapter.
        cast: the option that casts it.
    """

    input: int
    cast: ByOption | None = None


# ---------------------------------------------------------------------------------------------- of transplants


@dataclass(frozen=True, slots=True)
class SameKey:
    """Source and model have one key for it, once prefixes are swapped.

    Attributes:
        removed: a prefix taken off the source's key, with its last dot.
        added: a prefix put before it, with its last dot.
    """

    removed: str = ""
    added: str = ""


@dataclass(frozen=True, slots=True)
class ByHook:
    """A load hook of the model takes it so, under another name or computed of others."""


@dataclass(frozen=True, slots=True)
class OwnTensor:
    """The model's own tensor.

    Attributes:
        kind: "checkpoint" where the target is one; "counter" of a BatchNorm; "statistics" that are running ones;
            "buffer" that the model computes; "init" for all else.
        seed: of the init.
    """

    kind: Literal["checkpoint", "counter", "statistics", "buffer", "init"]
    seed: int = 0


@dataclass(frozen=True, slots=True)
class LeftToModel:
    """The output does not hold it."""


@dataclass(frozen=True, slots=True)
class NoSuchKey:
    """The model has no such key."""


@dataclass(frozen=True, slots=True)
class DoesNotFit:
    """It does not fit the model's tensor."""


@dataclass(frozen=True, slots=True)
class OtherPlace:
    """Its key is one of the model's, and shapes or other names say that it belongs elsewhere."""


# ---------------------------------------------------------------------------------------------- of what is no weight


@dataclass(frozen=True, slots=True)
class Follows:
    """Optimizer state and module versions that follow the tensors they belong to."""


@dataclass(frozen=True, slots=True)
class OnlyTensors:
    """The output's container holds tensors only."""


@dataclass(frozen=True, slots=True)
class NoPlace:
    """The output's container has no place for it."""


@dataclass(frozen=True, slots=True)
class OnlyTensorsRead:
    """Only tensors are read from the input's container."""


@dataclass(frozen=True, slots=True)
class NotTaken:
    """Only what the first input holds beside its weights is kept."""


@dataclass(frozen=True, slots=True)
class WeightsOnly:
    """A mix and a transplant take the weights of their inputs and nothing else."""


@dataclass(frozen=True, slots=True)
class NotCarried:
    """A file beside the checkpoint, which an output that is not a folder does not carry."""


@dataclass(frozen=True, slots=True)
class ConfigEdited:
    """What the weights make untrue in a config.json is changed in it.

    Attributes:
        changes: (name, old value, new value) as JSON; no new value where the name is taken out.
    """

    changes: tuple[tuple[str, str, str], ...]


Reason: TypeAlias = (
    Kept
    | ByOption
    | ByPatch
    | Decoded
    | NotKept
    | Tie
    | ByRules
    | ByTokens
    | Unmatched
    | NotUsed
    | RecipeTie
    | Init
    | FromInput
    | ReplacedBy
    | Mixed
    | Unmixed
    | TooFew
    | NotInAll
    | Unmixable
    | Adapted
    | TrainedWhole
    | SameKey
    | ByHook
    | ConfigEdited
    | OwnTensor
    | LeftToModel
    | NoSuchKey
    | DoesNotFit
    | OtherPlace
    | Follows
    | OnlyTensors
    | NoPlace
    | OnlyTensorsRead
    | NotTaken
    | WeightsOnly
    | NotCarried
)
