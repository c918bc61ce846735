"""The hash of a plan: equal for the same inputs, options and output. It names the stage and says what is resumed."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from types import FunctionType

from ckptool.core.bytes import ByteSource
from ckptool.core.plan import Fingerprinted, Plan
from ckptool.core.version import VERSION
from ckptool.formats.image import Image, Range
from ckptool.storage.local import Identity

FORMAT = 1
"""Goes up when the same plan would give other bytes."""


def plan_hash(plan: Plan, images: Mapping[str, Image]) -> str:
    """SHA-256 over the layout of every file, what is computed, and the identity of the inputs, in hexadecimal.

    Args:
        plan: says what is computed.
        images: the files of the output by name.

    What a live model has itself is told by its bytes. A plan with an op that nothing tells from others gets a hash that
    no other has: nothing of it is resumed.
    """
    digest = hashlib.sha256(f"{FORMAT} {VERSION}\n".encode())
    files = dict.fromkeys(file for checkpoint in plan.inputs for file in checkpoint.files)
    numbers: dict[ByteSource, Hashable] = {file: number for number, file in enumerate(files)}
    for file in files:
        digest.update(f"{lasting_identity(file.identity)}\n".encode())
    for name, image in images.items():
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
    return digest.hexdigest()


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
