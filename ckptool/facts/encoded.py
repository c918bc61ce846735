"""Encoded weights: codes that mean numbers only together with their scales. `ckptool.encodings` recognises them."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ckptool.core.counts import many, tallied
from ckptool.core.dtypes import DTYPES
from ckptool.core.facts import FINE, Answer, Fact, Operation, Refuse, Say, Use
from ckptool.core.observations import Decoded
from ckptool.core.spec import TensorSpec
from ckptool.facts.headers import Headers, amount
from ckptool.facts.registry import finder

if TYPE_CHECKING:
    from ckptool.encodings.encoded import Encoded as Group
    from ckptool.encodings.groups import Groups
    from ckptool.engine.decoded_columns import DecodedTensor

_ANSWERED = (Operation.CAST, Operation.COMPUTE, Operation.DROP, Operation.RENAME, Operation.COMPARE)
_LEAVE_OUT = "leave them out of this operation"


def _no_groups() -> Groups:
    from ckptool.encodings.groups import Groups

    return Groups(())


@dataclass(frozen=True, slots=True)
class Encoded(Fact):
    """Weights of one scheme. The keys are those of all groups.

    Attributes:
        scheme: what made them, and their layout: "GPTQ 4-bit, groups of 128".
        encoded: the logical tensors.
        config: config.json, as `ckptool.engine.dequantize.config_beside` gives it.
        metadata: of the file.
    """

    scheme: str = ""
    encoded: Groups = field(default_factory=_no_groups, repr=False, compare=False)
    config: Mapping[str, object] | None = field(default=None, repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)

    name = "encoded"
    may_be_allowed = True
    also: ClassVar[tuple[str, ...]] = ("quantized", "quantised", "quantization", "codes", "scales")
    tells = True
    rank = 11

    @property
    def text(self) -> str:
        are = "is" if len(self.encoded) == 1 else "are"
        return f"{many(len(self.encoded), 'tensor')} {are} quantized: {self.scheme}{_size(self.encoded)}"

    @property
    def hint(self) -> str:
        if any(group.problems for group in self.encoded.alike()):
            return "casting or averaging these weights gives nonsense; renaming is safe"
        return "filter, remap, merge and transplant decode them with --dequantize; renaming is safe without"

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        return tuple(self.encoded.member_keys())

    def answer(self, use: Use) -> Answer:
        if use.operation not in _ANSWERED:
            return FINE
        touched = set(use.keys)
        codes = tuple(group[0] for group in self.encoded.member_keys() if not touched.isdisjoint(group))
        stored = f"{many(len(codes), 'quantized weight')} ({self.scheme})"
        match use.operation:
            case Operation.CAST | Operation.COMPUTE if use.spared:
                done = "cast" if use.operation is Operation.CAST else "mixed"
                are = "is" if len(codes) == 1 else "are"
                why = f"{stored} {are} copied, not {done}: {codes[0]}"
                return Refuse(why, self._way(use), may_insist=True, keys=codes)
            case Operation.CAST:
                scales_only = set(codes).isdisjoint(use.keys)
                why = f"a cast would change the {'scales' if scales_only else 'codes'} of {stored}: {codes[0]}"
                return Refuse(why, self._way(use), may_insist=scales_only, keys=codes)
            case Operation.COMPUTE:
                why = f"the result would be computed from the codes of {stored}, not from the weights: {codes[0]}"
                return Refuse(why, self._way(use), may_insist=use.moves, keys=codes)
            case Operation.DROP:
                return Refuse(
                    f"codes and scales of {stored} are separated, only some of them are dropped: {use.keys[0]}",
                    "keep or drop all tensors of a quantized weight together, or decode it: --dequantize",
                    may_insist=True,
                )
            case Operation.RENAME:
                return self._renamed(use)
            case Operation.COMPARE:
                return Say(f"codes are compared, not the weights that they encode ({self.scheme})")
        return FINE

    def missed(self, wanted: Collection[str], used: Collection[str]) -> Answer:
        members = zip(self.encoded.keys(), self.encoded.member_keys(), strict=True)
        left = [(key, group) for key, group in members if group[0] not in used]
        if not left:
            return FINE
        shorter = {key[at + 1 :] for key in wanted for at, letter in enumerate(key) if letter == "."}
        missing = [(key, group) for key, group in left if _is_among(key, wanted, shorter)]
        if not missing:
            return FINE
        keys = tuple(key for key, _ in missing)
        tensors = f"{many(len(keys), 'tensor')} of the model"
        return Refuse(
            f"{tensors} would not be loaded: the source has them as quantized weights ({self.scheme}): {_few(keys)}",
            self._way(Use(Operation.LOAD, missing[0][1])),
            may_insist=True,
        )

    def _way(self, use: Use) -> str:
        """What to do instead: decode, or why that is not possible."""
        touched = set(use.keys)
        members = zip(self.encoded.alike(), self.encoded.member_keys(), strict=True)
        problems = (group.problems[0] for group, keys in members if group.problems and not touched.isdisjoint(keys))
        problem = next(problems, None)
        if problem is None:
            return f"decode them: --dequantize; or {_LEAVE_OUT}"
        return f"{_LEAVE_OUT}; they cannot be dequantized: {problem.text}"

    def _renamed(self, use: Use) -> Answer:
        """Fine if every group is the same group under its new names."""
        torn = self._torn(use.targets)
        if torn is None:
            return FINE
        group, names = torn
        return Refuse(
            f"the new names separate codes and scales ({self.scheme}): {' and '.join(names)} do not belong together",
            f"rename all tensors of {group.key} alike, or decode it: --dequantize",
            may_insist=True,
        )

    def _torn(self, targets: Mapping[str, tuple[str, ...]]) -> tuple[Group, list[str]] | None:
        """The first group that is not recognised under its new names; and those names."""
        from ckptool.encodings.descriptions import moved_key, renamed_config, renamed_descriptions
        from ckptool.encodings.registry import recognise

        groups = self.encoded
        specs: dict[str, TensorSpec] = {}
        origin: dict[str, tuple[int, str]] = {}
        names: dict[str, str | None] = {}
        for number, group in enumerate(groups):
            is_one = len(set(group.keys)) == 1  # nothing is separated
            for role, spec in () if is_one else group.members.items():
                for target in targets.get(spec.key, ()):
                    specs[target] = TensorSpec(target, spec.dtype, spec.shape)
                    origin[target] = number, role
            codes = targets.get(group.codes.key, ())
            names[group.key] = moved_key(group.key, group.codes.key, codes[0]) if codes else None
        whole: set[str] = set()
        pairs = ((old, new) for old, renamed in targets.items() for new in renamed)
        config = None if self.config is None else renamed_config(self.config, pairs)
        for found in recognise(specs, config, renamed_descriptions(self.metadata, names)):
            origins = {role: origin[spec.key] for role, spec in found.members.items()}
            numbers = {number for number, _ in origins.values()}
            was = groups[min(numbers)]
            same_roles = all(role == old for role, (_, old) in origins.items()) and set(origins) == set(was.members)
            if len(numbers) == 1 and same_roles and (found.scheme, _kinds(found)) == (was.scheme, _kinds(was)):
                whole.update(found.keys)
        for target, (number, _) in origin.items():
            if target not in whole:
                members = groups[number].members.values()
                return groups[number], [name for spec in members for name in targets.get(spec.key, ())]
        return None


def _is_among(key: str, keys: Collection[str], shorter: Collection[str]) -> bool:
    """True if a key is one of these, or is when one of the two has a prefix; `shorter` are all ends of the keys."""
    if key in keys or key in shorter:
        return True
    parts = key.split(".")
    return any(".".join(parts[at:]) in keys for at in range(1, len(parts) - 1))


def _kinds(group: Group) -> list[str]:
    return [problem.kind for problem in group.problems]


@dataclass(frozen=True, slots=True)
class Incomplete(Encoded):
    """Encoded weights that cannot be decoded because the file is damaged or says two things; `faults` say what."""

    faults: tuple[str, ...] = ()

    name = "encoded-incomplete"
    also: ClassVar[tuple[str, ...]] = ()
    level = "warning"
    grade = "error"
    rank = 2

    @property
    def text(self) -> str:
        more = f" (and {len(self.faults) - 1:,} more)" if len(self.faults) > 1 else ""
        return (
            f"{many(len(self.encoded), 'quantized tensor')} cannot be decoded ({self.scheme}): {self.faults[0]}{more}"
        )

    @property
    def hint(self) -> str:
        hints = [group.problems[0] for group in self.encoded]
        return next((problem.hint for problem in hints if problem.hint), "") or (
            "what is absent may be in another shard" if any(p.kind == "missing" for p in hints) else ""
        )

    def answer(self, use: Use) -> Answer:
        if use.operation in (Operation.COPY, Operation.LOAD):
            return Say(self.text, self.hint)
        if use.operation is Operation.RENAME:
            return FINE  # what is not whole cannot be torn
        return Encoded.answer(self, use)


@dataclass(frozen=True, slots=True)
class Dequantized(Fact):
    """Logical tensors in place of encoded ones: what ``--dequantize`` made of the checkpoint."""

    scheme: str = ""
    dtype: str = ""
    unused: tuple[str, ...] = ()

    name = "dequantized"
    rank = 12

    @property
    def text(self) -> str:
        less = f"; left out, as only quantized layers use them: {_few(self.unused)}" if self.unused else ""
        return f"{many(len(self.keys), 'tensor')} dequantized: {self.scheme} → {DTYPES[self.dtype].short}{less}"

    def answer(self, use: Use) -> Answer:
        if use.operation is Operation.COMPARE:
            are = "is" if len(self.keys) == 1 else "are"
            what = f"{many(len(self.keys), 'tensor')} {are} compared as decoded numbers, not as codes"
            return Say(f"{what}: {self.scheme} → {DTYPES[self.dtype].short}")
        used = use.operation in (Operation.COPY, Operation.CAST, Operation.COMPUTE)
        return Say(self.text, level="note") if used else FINE


def _size(groups: Groups) -> str:
    """`` → bf16, 4.5 bits a weight, 1.2 GB for 4.3 GB``: what is stored, and what it stands for."""
    if not groups:
        return ""
    kinds = tallied(list(groups.alike()))
    dtypes = " and ".join(dict.fromkeys(DTYPES[group.spec.dtype].short for group, _ in kinds))
    stored = sum(group.nbytes * times for group, times in kinds)
    elements = sum(group.spec.elements * times for group, times in kinds)
    logical = sum(group.spec.nbytes * times for group, times in kinds)
    bits = f"{8 * stored / max(1, elements):.2f}".rstrip("0").rstrip(".")
    return f" → {dtypes}, {bits} bits per weight, {amount(stored)} for {amount(logical)}"


def _few(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")


@finder
def find(headers: Headers) -> Iterator[Fact]:
    checkpoint = headers.checkpoint
    is_decoded = any(headers.observed(Decoded))
    if not is_decoded and not checkpoint.may_hold_codes:
        return
    from ckptool.encodings.groups import Groups
    from ckptool.engine.decoded_columns import decoded_tensors
    from ckptool.engine.dequantize import config_beside, encoded_of

    every = encoded_of(checkpoint)
    places: dict[tuple[bool, str], array[int]] = {}
    for at, encoded in enumerate(every.alike() if isinstance(every, Groups) else ()):
        is_faulty = any(problem.kind != "refused" for problem in encoded.problems)
        places.setdefault((is_faulty, encoded.scheme), array("I")).append(at)
    config = config_beside(checkpoint) if places else None
    for (is_faulty, scheme), wanted in sorted(places.items(), key=lambda item: item[0][0]):
        assert isinstance(every, Groups)
        groups = every.subset(wanted)
        title = _title(scheme, (group.detail for group in groups.alike()))
        about = _members(groups), title, groups, config, checkpoint.metadata
        if is_faulty:
            yield Incomplete(*about, tuple(group.problems[0].text for group in groups.alike()))
        else:
            yield Encoded(*about)
    decoded: dict[tuple[str, str], _DecodedAlike] = {}
    for tensor in decoded_tensors(checkpoint):
        name = tensor.alike.scheme, tensor.dtype
        if name not in decoded:
            decoded[name] = _DecodedAlike()
        decoded[name].add(tensor)
    for (scheme, dtype), found in decoded.items():
        title = _title(scheme, found.details)
        yield Dequantized(tuple(found.keys), title, dtype, tuple(found.unused))


@dataclass(slots=True)
class _DecodedAlike:
    """What there is to say of decoded tensors of one scheme and dtype."""

    keys: list[str] = field(default_factory=list)
    details: dict[str, None] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)

    def add(self, tensor: DecodedTensor) -> None:
        from ckptool.encodings.headers import ACTIVATION  # only where something is decoded

        self.keys.append(tensor.key)
        self.details[tensor.alike.detail] = None
        roles = zip(tensor.alike.members, tensor.members, strict=True)
        self.unused.extend(key for role, key in roles if role.endswith(ACTIVATION))


def _title(scheme: str, details: Iterable[str]) -> str:
    """``GGUF Q4_K, Q6_K``: the scheme with all its layouts."""
    return f"{scheme} {', '.join(dict.fromkeys(details))}".strip()


def _members(groups: Groups) -> tuple[str, ...]:
    """The keys of all members; each is of one group."""
    return tuple(key for keys in groups.member_keys() for key in keys)
