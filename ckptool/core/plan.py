"""The plan: every output tensor, where its bytes come from, and which rule said so.

A plan is data made from headers. What is printed is what runs. Each output tensor is a `Step` whose `value` is a small
expression over source tensors: a bare `Source` is copied byte for byte, an `Apply` is computed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, overload, runtime_checkable

from ckptool.core.beside import Beside, Carried
from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.errors import CkptError, PlanError
from ckptool.core.reasons import Reason, RuleName
from ckptool.core.spec import Form, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor of one of the plan's inputs, by the input's number and the key."""

    input: int
    key: str


@dataclass(frozen=True, slots=True)
class Run:
    """Bytes of one argument: `nbytes` from `offset` on, in its packed C-order form."""

    arg: int
    offset: int
    nbytes: int


class Op(Protocol):
    """What computes one tensor from others. Frozen, comparable, knows its result from specs alone."""

    @property
    def text(self) -> str:
        """It in the notation of the recipe language: ``bf16``, ``(h d two) i -> (h two d) i``, ``= $1 + $2``."""
        ...

    @property
    def is_elementwise(self) -> bool:
        """True if element i of the result needs only element i of each argument, all of the result's shape."""
        ...

    def result(self, args: Sequence[TensorSpec]) -> TensorSpec:
        """Dtype and shape of the result (its key is the first argument's, or empty). Raises `PlanError`."""
        ...

    def runs(self, args: Sequence[TensorSpec]) -> list[Run] | None:
        """The result as runs of the arguments' bytes, if it only moves bytes and the runs are long; else None."""
        ...

    def compute(self, args: Sequence[Array]) -> Array:
        """The result. For an elementwise op the arrays may be equal flat slices of the arguments."""
        ...


@runtime_checkable
class Fingerprinted(Protocol):
    """An op that no text tells from others, as one that has the values of a live model."""

    def fingerprint(self) -> str:
        """A text that only ops of the same result have."""
        ...


@dataclass(frozen=True, slots=True)
class Apply:
    """An op on values; an op without arguments makes its tensor from nothing (zeros, normal)."""

    op: Op
    args: tuple[Value, ...]


Value: TypeAlias = Source | Apply


def sources_of(value: Value) -> Iterator[Source]:
    """The source tensors below a value, left to right, repeated where used twice."""
    stack: list[Value] = [value]
    while stack:
        top = stack.pop()
        if isinstance(top, Source):
            yield top
        else:
            stack.extend(reversed(top.args))


@dataclass(frozen=True, slots=True)
class Step:
    """One output tensor.

    Attributes:
        target: its key, dtype and shape.
        value: where it comes from.
        reason: which rule or option says so.
        tied_to: the key of another step with which it is one tensor; its value gives the same elements.
        stored: False if the output says in its metadata that the key is `tied_to`, and holds no bytes for it.
    """

    target: TensorSpec
    value: Value
    reason: Reason
    tied_to: str | None = None
    stored: bool = True

    @property
    def is_copy(self) -> bool:
        return isinstance(self.value, Source)


class Copies(Sequence[Step]):
    """The steps of a plan that only copies or casts tensors of one input, each once, in little memory.

    A `Step` is a view of a row, made when it is asked for; who wants keys, forms or reasons alone takes the columns.

    Attributes:
        input: which input.
        keys: of the output; the same list as `sources` where none is renamed.
        sources: the keys of the input that they are copies of, no two equal; the tensors are columns.
        forms: dtype, shape and size of each.
        reasons: which rule or option says so.
        origins: their forms in the input; the same list as `forms` where none is cast.
        cast: the op for those that have another form in the input; None where none is cast.

    Example:
        >>> from ckptool.core.reasons import Kept
        >>> steps = Copies(0, ["b.w"], ["a.w"], [Form("float32", (3,), 12)], [Kept()])
        >>> steps[0].target.short, steps[0].value
        ('f32[3]', Source(input=0, key='a.w'))
    """

    __slots__ = ("_counted", "cast", "forms", "input", "keys", "origins", "reasons", "sources")

    def __init__(
        self,
        input: int,
        keys: list[str],
        sources: list[str],
        forms: list[Form],
        reasons: Sequence[Reason],
        origins: list[Form] | None = None,
        cast: Op | None = None,
    ) -> None:
        self.input = input
        self.keys = keys
        self.sources = sources
        self.forms = forms
        self.reasons = reasons
        self.origins = forms if origins is None else origins
        self.cast = cast
        self._counted: Counter[Form] | None = None

    @classmethod
    def of(cls, steps: Sequence[Step], inputs: Sequence[Checkpoint]) -> Copies | None:
        """Steps as columns; None if they are of another kind."""
        if len(inputs) != 1 or inputs[0].columns is None:
            return None
        sources: list[str] = []
        for step in steps:
            if not isinstance(step.value, Source) or step.tied_to is not None or not step.stored:
                return None
            sources.append(step.value.key)
        if len(set(sources)) < len(sources):
            return None
        keys = [step.target.key for step in steps]
        return cls(0, keys, sources, list(inputs[0].forms(sources)), [step.reason for step in steps])

    @property
    def renamed(self) -> list[str]:
        """The keys of the input that are copied under another one."""
        if self.keys is self.sources:
            return []
        if self.cast is None:
            return [old for old, new in zip(self.sources, self.keys, strict=True) if old != new]
        columns = zip(self.sources, self.keys, self.origins, self.forms, strict=True)
        return [old for old, new, origin, form in columns if old != new and origin is form]

    @property
    def sources_cast(self) -> list[str]:
        """The keys of the input that are cast."""
        if self.cast is None:
            return []
        columns = zip(self.sources, self.origins, self.forms, strict=True)
        return [key for key, origin, form in columns if origin is not form]

    def with_reasons(self, reasons: Sequence[Reason]) -> Copies:
        """The same for other reasons."""
        return Copies(self.input, self.keys, self.sources, self.forms, reasons, self.origins, self.cast)

    def cast_to(self, op: Op, made: Mapping[Form, Form], reason: Reason | None = None) -> Copies:
        """The same with an op for the tensors of some forms.

        Args:
            op: the cast.
            made: what it makes of the forms that it changes.
            reason: of those that are cast; None for the one that each has.
        """
        if not made:
            return self
        forms = [made.get(form, form) for form in self.origins]
        reasons = self.reasons
        if reason is not None:
            columns = zip(reasons, forms, self.origins, strict=True)
            reasons = [old if form is origin else reason for old, form, origin in columns]
        return Copies(self.input, self.keys, self.sources, forms, reasons, self.origins, op)

    @property
    def form_counts(self) -> Mapping[Form, int]:
        """How many tensors have each form."""
        if self._counted is None:
            self._counted = Counter(self.forms)
        return self._counted

    @overload
    def __getitem__(self, at: int) -> Step: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Step]: ...
    def __getitem__(self, at: int | slice) -> Step | Sequence[Step]:
        if isinstance(at, slice):
            return tuple(map(self.__getitem__, range(*at.indices(len(self)))))
        form = self.forms[at]
        target = TensorSpec(self.keys[at], form.dtype, form.shape)
        value: Value = Source(self.input, self.sources[at])
        if self.cast is not None and form is not self.origins[at]:
            value = Apply(self.cast, (value,))
        return Step(target, value, self.reasons[at])

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class Dropped:
    """A source tensor that no step uses, and why."""

    source: Source
    reason: Reason


@dataclass(frozen=True, slots=True)
class Problem:
    """A reason why the plan cannot be applied, and the error that applying it raises."""

    message: str
    hint: str = ""
    keys: tuple[str, ...] = ()
    error: type[CkptError] = PlanError


@dataclass(frozen=True, slots=True, eq=False)
class Moved:
    """A tensor beside the weights that the plan makes: the optimizer's state that is rearranged with its parameter.

    Attributes:
        step: what it becomes. Its sources are counted behind the plan's inputs, see `Plan.sources`.
        node: the object whose place it takes; None if it holds its own place in the objects.
    """

    step: Step
    node: object = None

    @property
    def place(self) -> object:
        """The object that stands for it among the frame's objects."""
        return self if self.node is None else self.node


@dataclass(frozen=True, slots=True)
class Use:
    """What became of one rule of a recipe.

    Attributes:
        rule: its text.
        name: which it is.
        keys: how many keys it decided.
        made: how many tensors it made of them.
        example: (a key, what it became; "!" if dropped).
        shadowed: it decided none, though it fits some: earlier rules had taken them.
    """

    rule: str
    name: RuleName
    keys: int
    made: int = 0
    example: tuple[str, str] | None = None
    shadowed: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """What made a plan.

    Attributes:
        name: the command.
        arguments: what tells one of its kinds from another: ``--method linear``, ``--reverse``.
    """

    name: Literal["filter", "remap", "merge", "transplant"]
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A whole output, decided on headers.

    Attributes:
        inputs: the opened checkpoints that `Source.input` counts.
        steps: the output's tensors in order.
        dropped: source tensors that are left out on purpose.
        problems: what makes it impossible; a plan with problems cannot be applied.
        unmet: expectations of the recipe that the output would not meet; it is not written then either.
        uses: what became of each rule of a recipe.
        notes: what the user should know.
        frame: number of the input whose other contents (optimizer, epoch, nesting) a torch output keeps; None for none.
        beside: what lies beside the weights, and what becomes of it.
        files: what a folder output carries beside the weights.
        container: what the output is, by the name of its writer; None while the plan is not complete.
        keeps_ties: tied keys are one tensor of the output, whose bytes they share.
        metadata: safetensors `__metadata__` for the output.
        module_versions: torch's module versions for the output, renamed and filtered with the keys; None for none.
        replaced_nodes: objects of the frame that get another in their place (the optimizer's state).
        moved: tensors of those objects that the plan makes.
        keep_unknown: carry objects of unknown classes into a torch output, unchanged.
        wrap: a torch output has the weights under this key.
        initial: keys of the output that hold initial values, which the output records.
        left_entries: dotted names of entries of the frame that are not tensors of the weights, and are left out.
        takes_damaged: values that do not have their stated checksum are written as they are.
        tokenizer: files of another tokenizer, which a folder output holds in place of the input's; None for no other.
        command: what made it.
        casts: another dtype was asked for (--dtype), whichever tensors have it already or cannot have it.
    """

    inputs: tuple[Checkpoint, ...]
    steps: Sequence[Step]
    dropped: tuple[Dropped, ...] = ()
    problems: tuple[Problem, ...] = ()
    unmet: tuple[Problem, ...] = ()
    uses: tuple[Use, ...] = ()
    notes: tuple[Note, ...] = ()
    frame: int | None = 0
    beside: tuple[Beside, ...] = ()
    files: tuple[Carried, ...] = ()
    container: str | None = None
    keeps_ties: bool = True
    metadata: Mapping[str, str] = field(default_factory=dict)
    module_versions: Mapping[str, int] | None = None
    replaced_nodes: tuple[tuple[object, object], ...] = ()
    moved: tuple[Moved, ...] = ()
    keep_unknown: bool = False
    wrap: str | None = None
    initial: tuple[str, ...] = ()
    left_entries: tuple[str, ...] = ()
    takes_damaged: bool = False
    tokenizer: tuple[Carried, ...] | None = None
    command: Command = Command("filter")
    casts: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of weights in the output."""
        if isinstance(self.steps, Copies):
            return sum(form.nbytes * many for form, many in self.steps.form_counts.items())
        return sum(self.nbytes_of(step) for step in self.steps)

    @property
    def stored(self) -> int:
        """How many tensors the output holds bytes for."""
        return len(self.steps) if isinstance(self.steps, Copies) else sum(step.stored for step in self.steps)

    def nbytes_of(self, step: Step) -> int:
        """Bytes that the output holds for one key: none where it shares another key's; of a copy as many as it has."""
        if (step.tied_to is not None and self.keeps_ties) or not step.stored:
            return 0
        if isinstance(step.value, Source) and step.value.input < len(self.inputs):
            return self.inputs[step.value.input].form(step.value.key).nbytes  # a meta tensor has none, a sparse one few
        return step.target.nbytes

    def step(self, number: int) -> Step:
        """A step by its number; behind the weights come the tensors of the optimizer's state that are made."""
        many = len(self.steps)
        return self.steps[number] if number < many else self.moved[number - many].step

    @property
    def sources(self) -> tuple[Checkpoint, ...]:
        """What `Source.input` counts: the inputs, then what the frame's input holds beside its weights."""
        frame = self.inputs[self.frame] if self.moved and self.frame is not None else None
        return self.inputs if frame is None else (*self.inputs, replace(frame, tensors=frame.other_tensors))
