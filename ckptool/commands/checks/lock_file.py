"""The lock file: keys, shapes, dtypes and digests of checkpoints as text that can be reviewed.

    # ckptool lock 1: key, dtype and shape, SHA-256 of the values; written by ckptool check --update-lock
    [weights/tuned.safetensors]
    bn1.bias<TAB>f32[64]<TAB>2f6c...
    ...

A digest is over the packed little-endian bytes in C order, so it does not depend on the format of the file. Lines and
sections are in natural order: a new version of a checkpoint changes those lines that it must.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

from ckptool.core.errors import MissingError, OutputError, UsageError
from ckptool.core.keys import natural_key
from ckptool.core.shell import shell_quote
from ckptool.storage.paths import exists, is_file, is_folder, resolved
from ckptool.storage.texts import read_bytes

VERSION = 1
_HEADER = (
    f"# ckptool lock {VERSION}: key, dtype and shape, SHA-256 of the values; written by ckptool check --update-lock"
)
_FIRST = re.compile(r"# ckptool lock (\d{1,9})\b")
_LINE = re.compile(r"([^\t]*)\t([a-z0-9_]+\[[0-9,]*\]|[a-z]+)\t([0-9a-f]{64}|-)")
_ESCAPE = re.compile(r"\\(?:([\\nrt])|x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")
_SHORT = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}
_LARGEST = 1 << 28


@dataclass(frozen=True, slots=True)
class Locked:
    """One tensor of a lock.

    Attributes:
        spec: ``f32[64,3,7,7]``.
        digest: SHA-256 of its bytes, in hexadecimal; "-" for a tensor without values.
    """

    spec: str
    digest: str


Section = Mapping[str, Locked]


def format_lock(sections: Mapping[str, Section]) -> str:
    """The text of a lock file.

    Example:
        >>> print(format_lock({"a.pth": {"w": Locked("f32[2]", "-")}}).splitlines()[1:])
        ['[a.pth]', 'w\\tf32[2]\\t-']
    """
    lines = [_HEADER]
    for name in sorted(sections, key=natural_key):
        lines.append(f"[{_escaped(name)}]")
        section = sections[name]
        lines += (
            f"{_escaped(key)}\t{section[key].spec}\t{section[key].digest}" for key in sorted(section, key=natural_key)
        )
    return "\n".join(lines) + "\n"


def parse_lock(text: str, path: PurePath | str = "the lock") -> dict[str, dict[str, Locked]]:
    """The sections of a lock file by the name of their checkpoint.

    Raises:
        UsageError: it is not one, is damaged, or of a newer format.
    """
    lines = text.split("\n")
    first = _FIRST.match(lines[0])
    if first is None:
        raise UsageError(f"{path} is not a lock file of ckptool", hint="give another name, or remove it", path=path)
    if int(first[1]) != VERSION:
        raise UsageError(
            f"{path} is a lock of version {first[1]}, known is {VERSION}", hint="update ckptool", path=path
        )
    sections: dict[str, dict[str, Locked]] = {}
    section: dict[str, Locked] | None = None
    for number, line in enumerate(lines[1:], 2):
        if match := _LINE.fullmatch(line):
            key = _unescaped(match[1])
            if section is None or key is None or key in section:
                raise _damaged(path, number)
            section[key] = Locked(match[2], match[3])
        elif line.startswith("[") and line.endswith("]") and "\t" not in line:
            name = _unescaped(line[1:-1])
            if name is None or name in sections:
                raise _damaged(path, number)
            section = sections[name] = {}
        elif line.strip() and ("\t" in line or not line.startswith("#")):
            raise _damaged(path, number)
    return sections


def read_lock(path: PurePath) -> dict[str, dict[str, Locked]]:
    """The sections of a lock file; none if there is no such file.

    Raises:
        UsageError: it cannot be read, or is damaged.
    """
    try:
        text = read_bytes(path, _LARGEST, "lock file").decode()
    except MissingError:
        return {}
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a lock file of ckptool", hint="give another name", path=path) from None
    return parse_lock(text.replace("\r\n", "\n"), path)


def write_lock(path: PurePath, sections: Mapping[str, Section]) -> None:
    """Write or replace a lock file as a whole.

    Raises:
        OutputError: it cannot be written; what was there is untouched.
    """
    from ckptool.storage.staging import write_file

    if not is_folder(path.parent):
        hint = f"mkdir -p {shell_quote(path.parent)}"
        raise OutputError(f"the folder {path.parent} does not exist", hint=hint, path=path)
    if exists(path) and not is_file(path):
        raise OutputError(f"{path} is not a regular file", hint="give another name", path=path)
    write_file(resolved(path), [format_lock(sections).encode()], force=True, replaces_input=True)


def _damaged(path: PurePath | str, number: int) -> UsageError:
    return UsageError(
        f"{path}:{number}: not a line of a lock file, or there twice",
        hint="a merge may have left it so: take either side, then ckptool check --update-lock",
        path=path,
    )


def _escaped(text: str) -> str:
    """The text on one line and to the eye what it is; `_unescaped` gives it back."""
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    return "".join(char if char.isprintable() and char != "\\" else _escape(char) for char in text)


def _escape(char: str) -> str:
    if char in "\\\n\r\t":
        return {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}[char]
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _unescaped(text: str) -> str | None:
    """What was escaped; None if it was not escaped by this format."""
    if "\\" not in text:
        return text
    plain = _ESCAPE.sub("", text)
    if "\\" in plain:
        return None

    def char(match: re.Match[str]) -> str:
        if match[1]:
            return _SHORT[match[1]]
        code = int(match[2] or match[3] or match[4], 16)
        return chr(code) if code < 0x110000 else "\ufffd"

    return _ESCAPE.sub(char, text)
