"""The hash of a plan: equal for the same inputs, options and output. It names the stage and says what is resumed."""

from __future__ import annotations

import hashlib
import secrets
from array import array
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import astuple, fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from types import FunctionType

from ckptool.core.bytes import ByteSource
from ckptool.core.plan import Copies, Fingerprinted, Plan
from ckptool.core.version import VERSION
from ckptool.formats.image import Image, Range
from ckptool.formats.shard_names import INDEX
from ckptool.formats.writer import Output
from ckptool.storage.local import Identity

FORMAT = 2
"""Goes up when the same plan would give other bytes."""

_AT_ONCE = 10_000  # keys


def plan_hash(plan: Plan, output: Output) -> str:
    """SHA-256 over what decides every byte of an output, and the identity of the inputs, in hexadecimal.

    Args:
        plan: says what is computed.
        output: its files.

    Files that are laid out are told by their layout; files that are laid out when they are asked for, which are of
    copies alone, by the columns from which that is done.

    What a live model has itself is told by its bytes. A plan with an op that nothing tells from others gets a hash that
    no other has: nothing of it is resumed.
    """
    digest = hashlib.sha256(f"{FORMAT} {VERSION} {plan.container}\n".encode())
    files = dict.fromkeys(file for checkpoint in plan.inputs for file in checkpoint.files)
    numbers: dict[ByteSource, Hashable] = {file: number for number, file in enumerate(files)}
    for file in files:
        digest.update(f"{lasting_identity(file.identity)}\n".encode())
    if output.is_of_columns and isinstance(plan.steps, Copies):
        for text in texts_of([plan.metadata, [(name, *astuple(each)) for name, each in output.portions.items()]]):
            digest.update(f"{text}\n".encode("utf-8", "surrogatepass"))
        _add_copies(digest, plan, plan.steps)
    for name in output.images:
        if not output.is_of_columns or (name not in output.portions and name != INDEX):
            _add_image(digest, name, output.images[name], plan, numbers)
    return digest.hexdigest()


def _add_image(
    digest: hashlib._Hash, name: str, image: Image, plan: Plan, numbers: Mapping[ByteSource, Hashable]
) -> None:
    """Add the layout of a file, and what is computed for it."""
    digest.update(f"{name!r} {image.size}\n".encode("utf-8", "surrogateescape"))
    for offset, literal in image.literals:
        digest.update(b"%d %d " % (offset, len(literal)))
        digest.update(literal)
    for slot in image.slots:
        parts = [f"{slot.offset} {slot.nbytes}"]
        for content in slot.contents:
            if isinstance(content, Range):
                known = numbers.get(content.file, content.file.identity)  # bytes that were computed have no number
                parts.append(f"{known} {content.offset} {content.nbytes}")
            else:
                parts.extend(texts_of(plan.step(content.index).value))
        digest.update("\n".join(parts).encode("utf-8", "surrogatepass"))


def _add_copies(digest: hashlib._Hash, plan: Plan, steps: Copies) -> None:
    """Add the columns of copies and casts: keys, forms, the cast, and from which byte of which file each comes."""
    columns = plan.inputs[steps.input].columns
    assert columns is not None
    for text in texts_of(steps.cast):
        digest.update(f"{text}\n".encode("utf-8", "surrogatepass"))
    digest.update(f"{steps.keys is steps.sources} {steps.forms is steps.origins}\n".encode())
    for keys in (steps.keys,) if steps.keys is steps.sources else (steps.keys, steps.sources):
        digest.update(array("Q", map(len, keys)).tobytes())
        for low in range(0, len(keys), _AT_ONCE):
            digest.update("".join(keys[low : low + _AT_ONCE]).encode("utf-8", "surrogatepass"))
    for column in (steps.forms,) if steps.forms is steps.origins else (steps.forms, steps.origins):
        forms = {form: number for number, form in enumerate(dict.fromkeys(column))}
        digest.update(f"{list(forms)}\n".encode())
        digest.update(array("Q", map(forms.__getitem__, column)).tobytes())
    for part in columns.origins(steps.sources):
        digest.update(part)


def lasting_identity(identity: Hashable) -> Hashable:
    """The identity of a file, as every machine that sees it has it: the number of a file system is one machine's."""
    if isinstance(identity, Identity):
        return tuple(identity[1:])
    return tuple(map(lasting_identity, identity)) if isinstance(identity, tuple) else identity


def texts_of(value: object) -> Iterator[str]:
    """A value as texts that are equal only for equal values."""
    if value is None or isinstance(value, str | int | float | complex | bytes | PurePath):
        yield f"{type(value).__name__} {value!r}"
    elif isinstance(value, Fingerprinted):
        yield f"{type(value).__qualname__} {value.fingerprint()}"
    elif isinstance(value, Enum):
        yield f"{type(value).__qualname__} {value.name}"
    elif isinstance(value, Mapping):
        yield f"mapping {len(value)}"
        for key, each in value.items():
            yield from texts_of(key)
            yield from texts_of(each)
    elif isinstance(value, tuple | list):
        yield f"sequence {len(value)}"
        for each in value:
            yield from texts_of(each)
    elif isinstance(value, frozenset):
        yield f"set {sorted(text for each in value for text in texts_of(each))}"
    elif is_dataclass(value) and type(value).__eq__ is not object.__eq__:
        yield f"{type(value).__module__}.{type(value).__qualname__}"
        for field in fields(value):
            yield from texts_of(getattr(value, field.name))
    elif isinstance(value, FunctionType) and value.__closure__ is None and value.__qualname__.isidentifier():
        yield f"{value.__module__}.{value.__qualname__}"
    else:
        yield secrets.token_hex(16)
