"""What the public functions are given, looked at before anything is done: a wrong type is said with what to pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

from ckptool.core.bytes import HasPath

_P = ParamSpec("_P")
_R = TypeVar("_R")
_SHOWN = 40  # characters of a value
Test = Callable[[Any], bool]


class Kind(NamedTuple):
    """What an argument may be.

    Attributes:
        says: it in words: "a path, or what ckptool.open gives".
        test: True for a value that is of it.
        names: where it is one of a few texts, these.
    """

    says: str
    test: Test
    names: tuple[str, ...] = ()


def checked(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The function, which raises a `TypeError` that says what to pass where an argument has another type (a decorator).

    Example:
        >>> @checked
        ... def open(path): ...
        >>> open(3)
        Traceback (most recent call last):
            ...
        TypeError: open: path is 3; give a path or an address
    """
    code = function.__code__
    parameters = code.co_varnames[: code.co_argcount]

    @wraps(function)
    def asked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        given = {**dict(zip(parameters, args, strict=False)), **kwargs}
        further = (("patches", value) for value in args[len(parameters) :]) if code.co_flags & _VARIADIC else ()
        for name, value in [*given.items(), *further]:
            kind = _kind_of(function.__name__, name)
            if kind is not None:
                _require(function.__name__, name, value, kind, given)
        return function(*args, **kwargs)

    return asked


_VARIADIC = 4  # of a code's flags: it takes *args


def _require(function: str, name: str, value: object, kind: Kind, given: Mapping[str, object]) -> None:
    if not kind.test(value):
        raise TypeError(f"{function}: {name} is {_shown(value)}; give {kind.says}{_advice(name, value, given)}")
    if kind.names and isinstance(value, str) and value not in kind.names:
        from ckptool.core.errors import UsageError

        hint = f"it is one of {', '.join(kind.names)}"
        raise UsageError(f'{name} = "{value}"', hint=hint)


def _advice(name: str, value: object, given: Mapping[str, object]) -> str:
    """What was probably meant."""
    if name == "model" and _is_module(given.get("source")):
        return "; the two are swapped: load_into(model, source)"
    if _is_module(value):
        return "; a model is not a checkpoint: save its state dict first"
    if isinstance(value, Mapping) and any(hasattr(each, "data_ptr") for each in list(value.values())[:1]):
        return "; a dict of tensors is not a file: save it first"
    return ""


def _shown(value: object) -> str:
    if _is_module(value):
        return f"a model ({type(value).__name__})"
    if value is None or isinstance(value, bool | int | float | str | bytes):
        text = repr(value)
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return f"a {type(value).__name__}"


# ---------------------------------------------------------------------------------------------- kinds


def _is_path(value: object) -> bool:
    return isinstance(value, str | HasPath) and value != ""


def _is_input(value: object) -> bool:
    from ckptool.core.checkpoint import Checkpoint

    return _is_path(value) or isinstance(value, Checkpoint)


def _is_module(value: object) -> bool:
    """True for a `torch.nn.Module`; told without torch."""
    return not isinstance(value, type) and callable(getattr(value, "named_parameters", None))


def _is_goal(value: object) -> bool:
    return _is_input(value) or _is_module(value) or (hasattr(value, "specs") and hasattr(value, "modules"))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _is_switch(value: object) -> bool:
    return isinstance(value, bool)


def _several(test: Test, *, or_one: bool = True) -> Test:
    """One of a kind, or several in whatever can be gone through; what can be gone through once is not looked at."""

    def tested(value: object) -> bool:
        if or_one and test(value):
            return True
        if isinstance(value, str | bytes | Mapping) or _is_module(value) or not isinstance(value, Iterable):
            return False
        return isinstance(value, Iterator) or all(map(test, value))

    return tested


def _table(test: Test) -> Test:
    return lambda value: isinstance(value, Mapping) and all(map(_is_text, value)) and all(map(test, value.values()))


def _or_none(kind: Kind) -> Kind:
    return Kind(f"{kind.says}, or None", lambda value: value is None or kind.test(value), kind.names)


def _one_of(*names: str) -> Kind:
    return Kind(" or ".join(f'"{name}"' for name in names), _is_text, names)


def _is_choice(value: object) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_text, value))


def _is_pair_of_paths(value: object) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_path, value))


def _is_recipe(value: object) -> bool:
    return hasattr(value, "stages") or _several(_is_path)(value)


def _is_transplant(value: object) -> bool:
    return hasattr(value, "plan") and hasattr(value, "source") and hasattr(value, "target")


def _is_tolerance(value: object) -> bool:
    return all(hasattr(value, name) for name in ("rel", "abs", "ulp"))


INPUT = Kind("a path, an address, or what ckptool.open gives", _is_input)
GOAL = Kind('a model, or a text: "torchvision:resnet50", "net.py:Net", or the path of a checkpoint', _is_goal)
PATH = Kind("a path: text or os.PathLike", _is_path)
TEXT = Kind("a text", _is_text)
SWITCH = Kind("True or False", _is_switch)
WHOLE = Kind("a whole number", _is_whole)
NUMBER = Kind("a number", _is_number)
NUMBERS = Kind("numbers by name, as {'r': 8}", _table(_is_number))
RECIPE_VALUES = Kind(
    "numbers and names of lists by name, as {'r': 8}", _table(lambda value: _is_number(value) or _is_text(value))
)
TEXTS = Kind("a text, or a list of texts", _several(_is_text))
RECIPE = Kind('a rule "FROM -> TO", the name of a recipe, a list of these, or a ckptool.Recipe', _is_recipe)
ANY_TABLE = Kind("arguments by name, as {'num_classes': 10}", _table(lambda _: True))
TEXT_TABLE = Kind("texts by key pattern, as {'fc.*': 'zeros'}", _table(_is_text))

_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("path", "old", "new", "checkpoint", "source", "tuned", "base", "patches"), INPUT),
    **dict.fromkeys(("like", "lora"), _or_none(INPUT)),
    **dict.fromkeys(("target", "source_model"), GOAL),
    **dict.fromkeys(("select", "dtype", "method", "into", "wrap", "to"), _or_none(TEXT)),
    **dict.fromkeys(("only", "drop", "allow"), TEXTS),
    **dict.fromkeys(("keys_only", "only_weights", "reverse", "strict", "only_loaded", "trust_policy", "force"), SWITCH),
    **dict.fromkeys(
        ("drop_optimizer", "optimizer_as_is", "keep_unknown", "eval_batchnorm", "resume", "modules_to_save"), SWITCH
    ),
    **dict.fromkeys(("threads", "seed", "rank"), WHOLE),
    **dict.fromkeys(("fits", "init"), _or_none(TEXT_TABLE)),
    "params": _or_none(NUMBERS),
    "vars": _or_none(RECIPE_VALUES),
    "checkpoints": Kind("a list of paths, or of what ckptool.open gives", _several(_is_input)),
    "paths": Kind("a path, or a list of paths", _several(_is_path)),
    "model": Kind("a torch.nn.Module", _is_module),
    "transplant": Kind("what ckptool.plan_transplant gives", _is_transplant),
    "tolerance": _or_none(Kind("a ckptool.Tolerance, as ckptool.Tolerance(rel=1e-3)", _is_tolerance)),
    "recipe": _or_none(RECIPE),
    "rules": _or_none(TEXTS),
    "complete_with": _or_none(PATH),
    "choices": Kind(
        'pairs of "keep" or "drop" and a pattern, as [("drop", "fc.*")]', _several(_is_choice, or_one=False)
    ),
    "model_args": _or_none(ANY_TABLE),
    "weights": _or_none(Kind("a list of numbers, one for each input", _several(_is_number, or_one=False))),
    "input_shape": _or_none(Kind("a shape, as (1, 3, 224, 224)", _several(_is_whole, or_one=False))),
    "min_coverage": _or_none(NUMBER),
    "max_shard": _or_none(WHOLE),
    "part": _or_none(Kind("two whole numbers, as (2, 8)", _several(_is_whole, or_one=False))),
    "policy": _or_none(PATH),
    "work": _or_none(PATH),
    "tokenizers": _or_none(Kind("the old and the new tokenizer, two paths", _is_pair_of_paths)),
    "out": PATH,
    "progress": _or_none(Kind("a function of (bytes done, bytes in all)", callable)),
    "accept": _one_of("certain", "unique", "aligned", "guess", "interchangeable"),
    "mismatch": _one_of("skip", "error", "fit"),
    "tied": _one_of("clone", "keep-first"),
    "keys": _one_of("exact", "intersect", "union"),
}
_OF_FUNCTIONS: dict[tuple[str, str], Kind] = {
    ("plan_merge", "base"): _or_none(INPUT),
    ("plan_remap", "recipe"): RECIPE,
    ("plan_transplant", "new"): TEXTS,
    ("load_into", "new"): TEXTS,
    ("extract", "out"): _or_none(PATH),
    ("extract_lora", "out"): _or_none(PATH),
    ("open", "path"): Kind("a path or an address", _is_path),
}
"""The parameters that one function takes otherwise than the others."""


def _kind_of(function: str, name: str) -> Kind | None:
    return _OF_FUNCTIONS.get((function, name), _KINDS.get(name))
