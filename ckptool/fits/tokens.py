"""Vocabularies: which token has which row of an embedding, from the files of a tokenizer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, NoReturn

from ckptool.core.bytes import ByteSource, Folder, PathText
from ckptool.core.errors import UsageError
from ckptool.storage.locate import locate

FILES = ("tokenizer.json", "vocab.json", "vocab.txt")
"""Files that hold a vocabulary, the first one first."""
MAX_TEXT = 1 << 26
"""Bytes of such a file."""
MAX_ID = 10_000_000


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens of a tokenizer.

    Attributes:
        path: the file.
        ids: the row of each token.
    """

    path: PurePath
    ids: Mapping[str, int]

    @property
    def rows(self) -> int:
        """How many rows an embedding needs: one more than the highest id."""
        return max(self.ids.values(), default=-1) + 1


def read_vocabulary(path: PathText) -> Vocabulary:
    """The vocabulary of a tokenizer: of its file, or of its folder: the first of `FILES`, and tokens that are added.

    Raises:
        UsageError: there is none, or it is not one: two ids for one token, two tokens for one id.
    """
    place = locate(path)
    if not isinstance(place, Folder):
        return _read(place)
    names = {entry.name for entry in place.entries() if not entry.is_folder}
    name = next((name for name in FILES if name in names), None)
    if name is None:
        raise UsageError(
            f"there is no vocabulary in {place.path}", hint=f"it was looked for as {', '.join(FILES)}", path=place.path
        )
    ids = dict(_read(place.open(name)).ids)
    for beside, added in _ADDED.items():
        if beside in names:
            ids = _with_added(ids, place.open(beside), added)
    return Vocabulary(place.path / name, ids)


def _of_added_file(value: Any) -> Iterator[tuple[Any, Any]]:
    """added_tokens.json: {"<new>": 32000}."""
    yield from _pairs(value)


def _of_settings(value: Any) -> Iterator[tuple[Any, Any]]:
    """tokenizer_config.json: {"added_tokens_decoder": {"32000": {"content": "<new>"}}}."""
    added = value.get("added_tokens_decoder") if isinstance(value, dict) else None
    for number, token in (added if isinstance(added, dict) else {}).items():
        is_number = number.isascii() and number.isdecimal() and len(number) < 10
        yield token.get("content") if isinstance(token, dict) else token, int(number) if is_number else number


_ADDED: dict[str, Callable[[Any], Iterator[tuple[Any, Any]]]] = {
    "added_tokens.json": _of_added_file,
    "tokenizer_config.json": _of_settings,
}
"""Files that name further tokens, as transformers reads them: what the vocabulary has, it has with its own id."""


def _with_added(
    ids: Mapping[str, int], source: ByteSource, added: Callable[[Any], Iterator[tuple[Any, Any]]]
) -> dict[str, int]:
    try:
        more = [pair for pair in added(_json(_text_of(source))) if type(pair[0]) is not str or pair[0] not in ids]
        return _checked([*ids.items(), *more])
    except UsageError as error:
        raise UsageError(f"{source.name}: {error.message}", hint=error.hint, path=source.path) from None


def _read(source: ByteSource) -> Vocabulary:
    path = source.path
    text = _text_of(source)
    try:
        return Vocabulary(path, parse_vocabulary(text, path.name))
    except UsageError as error:
        raise UsageError(f"{path.name}: {error.message}", hint=error.hint, path=path) from None


def _text_of(source: ByteSource) -> str:
    path = source.path
    if source.size > MAX_TEXT:
        raise UsageError(f"{path.name} is larger than {MAX_TEXT >> 20} MiB, too large for a tokenizer", path=path)
    with source.open() as opened:
        packed = opened.read(0, source.size)
    try:
        return packed.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path.name} is not text", path=path) from None


def parse_vocabulary(text: str, name: str = "tokenizer.json") -> dict[str, int]:
    """The id of each token: tokenizer.json of any model, vocab.json, or one token a line.

    Raises:
        UsageError: it is none of these; two ids for one token, two tokens for one id.

    Example:
        >>> unigram = '{"model": {"type": "Unigram", "vocab": [["a", -1.5], ["b", -2]]}, "added_tokens": []}'
        >>> parse_vocabulary(unigram), parse_vocabulary("[PAD]\\nthe\\n", "vocab.txt")
        ({'a': 0, 'b': 1}, {'[PAD]': 0, 'the': 1})
    """
    if not name.endswith(".json"):
        return _checked((line, number) for number, line in enumerate(text.removesuffix("\n").split("\n")))
    value = _json(text)
    if isinstance(value, dict) and "model" in value:
        return _checked([*_of_model(value["model"]), *_added(value.get("added_tokens"))])
    return _checked(_pairs(value))


def _json(text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
            raise UsageError(f"it has the name {twice[:40]!r} twice in one object")
        return found

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"it is not JSON: {error}") from None


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _of_model(model: Any) -> Iterator[tuple[Any, Any]]:
    """A dict of ids (BPE, WordPiece, WordLevel), or a list of tokens with scores (Unigram)."""
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, list):
        for number, row in enumerate(vocab):
            if not isinstance(row, list) or len(row) != 2:
                raise UsageError(f"entry {number:,} of its vocabulary is not [token, score]")
            yield row[0], number
    else:
        yield from _pairs(vocab)


def _added(rows: Any) -> Iterator[tuple[Any, Any]]:
    for row in rows or ():
        if not isinstance(row, dict):
            raise UsageError("its added_tokens are not a list of objects")
        yield row.get("content"), row.get("id")


def _pairs(vocab: Any) -> Iterator[tuple[Any, Any]]:
    if not isinstance(vocab, dict):
        raise UsageError(
            "it has no vocabulary", hint='tokenizer.json has {"model": {"vocab": ...}}, vocab.json {"a": 0}'
        )
    yield from vocab.items()


def _checked(pairs: Iterable[tuple[Any, Any]]) -> dict[str, int]:
    """The ids, each token and each id once. A token that is added again with the id it has is the same."""
    ids: dict[str, int] = {}
    tokens: dict[int, str] = {}
    for token, number in pairs:
        if not isinstance(token, str):
            raise UsageError(f"a token is not a text: {str(token)[:40]}")
        if type(number) is not int or not 0 <= number < MAX_ID:
            raise UsageError(f"the id of {token[:40]!r} is not a row: {str(number)[:40]}")
        if ids.setdefault(token, number) != number:
            raise UsageError(f"the token {token[:40]!r} has two ids, {ids[token]:,} and {number:,}")
        if tokens.setdefault(number, token) != token:
            raise UsageError(f"the id {number:,} has two tokens, {tokens[number][:40]!r} and {token[:40]!r}")
    if not ids:
        raise UsageError("it has no tokens")
    return ids
