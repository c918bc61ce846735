"""A pattern matched nothing: what was probably meant.

Tried in order: the pattern as a module, behind a prefix that all keys share, without a wrapper prefix, anywhere in the
tree; then all of that with one part replaced by a synonym ("classifier" for "fc") or by a similar name that occurs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import chain, islice
from pathlib import PurePath

from ckptool.core.counts import many
from ckptool.core.errors import NoMatchError, UsageError
from ckptool.core.keys import Pattern, common_prefix, escape, strip_wrappers
from ckptool.core.shell import shell_quote

_SYNONYMS = (
    ("fc", "classifier", "head", "heads", "last_linear", "lm_head", "score", "cls", "logits", "output"),
    ("backbone", "base", "encoder", "body", "features", "model", "trunk", "transformer"),
    ("num_batches_tracked", "num_batches"),
    ("weight", "gamma", "kernel", "scale", "w"),
    ("bias", "beta", "b"),
    ("layers", "layer", "blocks", "block", "h"),
    ("attn", "self_attn", "attention", "self_attention"),
    ("mlp", "ffn", "feed_forward"),
    ("norm", "ln", "bn", "LayerNorm", "layer_norm"),
    ("embed", "embeddings", "embedding", "embed_tokens", "wte", "tok_embeddings"),
    ("pos_embed", "pos_embedding", "position_embeddings", "wpe", "positional_embedding"),
)
_MANY_TRIES = 60


def near_miss(pattern: Pattern, keys: Collection[str]) -> Pattern | None:
    """A pattern close to one that matched nothing which does match something; None if there is none.

    Example:
        >>> near_miss(Pattern.parse("fc.*"), ["module.fc.weight", "module.fc.bias"]).text
        'module.fc.*'
    """
    for text in islice(dict.fromkeys(_variants(pattern.text, keys)), _MANY_TRIES):
        try:
            near = Pattern.parse(text)
        except UsageError:
            continue
        if any(map(near.matches, keys)):
            return near
    return None


class UnknownKeyError(KeyError):
    """A key that a checkpoint does not have; what was probably meant is looked for when it is printed.

    Args:
        key: it.
        keys: those that there are.

    Example:
        >>> print(UnknownKeyError("fc.wieght", ["fc.weight", "fc.bias"]))
        no tensor "fc.wieght"; did you mean "fc.weight"?
    """

    def __init__(self, key: str, keys: Collection[str]) -> None:
        super().__init__(key)
        self._keys = keys

    def __str__(self) -> str:
        near = near_miss(Pattern.parse(escape(str(self.args[0]))), self._keys)
        found = near.select(self._keys)[0] if near else ""
        return f'no tensor "{self.args[0]}"' + (f'; did you mean "{found}"?' if found else "")


def _variants(text: str, keys: Collection[str]) -> Iterator[str]:
    if text.startswith("re:"):
        yield f"re:.*(?:{text[3:]}).*"
        return
    if text.endswith("."):
        yield f"{text}*"
        text = text.rstrip(".")
    shared = common_prefix(keys).split(".")[:-1]
    prefixes = [f"{'.'.join(shared[: count + 1])}." for count in range(min(len(shared), 4))]
    for guess in chain([text], _respelled(text, keys)):
        yield guess
        yield f"{guess}.*"
        for prefix in prefixes:
            yield prefix + guess
            yield f"{prefix}{guess}.*"
        yield strip_wrappers(guess)
        if not guess.startswith("*"):
            yield f"*.{guess}"
            yield f"*.{guess}.*"
    _, _, rest = text.partition(".")
    if rest.strip("*?."):
        yield rest


def _respelled(text: str, keys: Collection[str]) -> Iterator[str]:
    """The pattern with one of its parts replaced: by a synonym, then by a similar part that occurs."""
    parts = text.split(".")
    known = {part.casefold(): part for key in keys for part in key.split(".") if not part.isdecimal()}
    for at, part in enumerate(parts):
        for group in _SYNONYMS:
            for other in group if part in group else ():
                if other != part and other.casefold() in known:
                    yield ".".join([*parts[:at], known[other.casefold()], *parts[at + 1 :]])
    import difflib  # only on the way to an error

    for at, part in enumerate(parts):
        for close in difflib.get_close_matches(part.casefold(), list(known)[:20_000], n=3):
            yield ".".join([*parts[:at], escape(known[close]), *parts[at + 1 :]])


def require_match(
    pattern: Pattern, keys: Collection[str], option: str, path: PurePath | str | None = None
) -> list[str]:
    """The keys that the pattern means; `NoMatchError` with a near miss if there are none.

    Example:
        >>> require_match(Pattern.parse("fc"), ["head.fc", "fc.weight", "bn.bias"], "--drop", "a.pth")
        ['head.fc', 'fc.weight']
    """
    found = pattern.select(keys)
    if found:
        return found
    hints = []
    if near := near_miss(pattern, keys):
        count = len(near.select(keys))
        hints.append(f'did you mean "{near.text}" ({many(count, "key")})?')
    if path is not None:
        hints.append(f"list all: ckptool inspect {shell_quote(path)}")
    what = f"matches none of the {len(keys):,} keys" if len(keys) != 1 else "does not match the only key"
    raise NoMatchError(option, pattern.text, what, hint="   ".join(hints) or None, path=path)


def chosen_keys(keys: Collection[str], only: Sequence[str], option: str, where: PurePath) -> list[str]:
    """The keys that any pattern means, in their order; all without one.

    Args:
        keys: of a file.
        only: the patterns.
        option: what gave them, for the error.
        where: the file.

    Raises:
        UsageError: a pattern matches nothing.
    """
    chosen = {key for text in only for key in require_match(Pattern.parse(text), keys, option, where)}
    return [key for key in keys if key in chosen] if only else list(keys)
