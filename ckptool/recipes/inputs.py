"""What lies beside a recipe's input: numbers in its JSON files, and further files of one checkpoint."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath

from ckptool.core.bytes import PathText
from ckptool.core.errors import MissingError, UsageError
from ckptool.recipes.pattern import parse_pattern
from ckptool.recipes.recipe import MAX_TEXT, Recipe
from ckptool.recipes.require import require_files
from ckptool.storage.locate import locate_folder
from ckptool.storage.texts import read_text

_METADATA = "metadata"


def resolve_vars(
    recipe: Recipe, lookup: Callable[[str, str], object], given: Mapping[str, float] | None = None
) -> dict[str, float]:
    """The numbers of a recipe's vars.

    Args:
        recipe: its texts "config.json:num_attention_heads" are looked up.
        lookup: called with "config.json" and "num_attention_heads".
        given: values that come first (--var).

    Raises:
        UsageError: a value is not a number, or a text no ``FILE:NAME``.
    """
    found: dict[str, float] = {}
    for name, value in {**recipe.vars, **(given or {})}.items():
        number: object = value
        if isinstance(value, str):
            file, colon, path = value.rpartition(":")
            if not colon or not file:
                raise UsageError(f'vars.{name} = "{value}" is neither a number nor FILE:NAME')
            number = lookup(file, path)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise UsageError(f"vars.{name} is not a number: {number!r}", hint=f"give it: --var {name}=...")
        found[name] = number
    return found


def numbers_beside(
    recipe: Recipe,
    path: PathText,
    given: Mapping[str, float] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> dict[str, float]:
    """The numbers of a recipe's vars, some of them from the JSON files beside a checkpoint, or from its metadata.

    Args:
        recipe: it says which.
        path: the checkpoint, a file or a folder.
        given: values that come first (--var).
        metadata: the checkpoint's, for texts "metadata:NAME".

    Raises:
        UsageError: a number is missing, nothing uses one that is given, or the files say that a precondition of the
            recipe is not met.
    """
    require_used(recipe, given or {})
    require_files(recipe.require, locate_folder(path).path, recipe.name, lambda file: read_text(file, MAX_TEXT))
    in_files = json_lookup(path)

    def lookup(file: str, name: str) -> object:
        return _in_metadata(metadata or {}, name) if file == _METADATA else in_files(file, name)

    return resolve_vars(recipe, lookup, given)


def _in_metadata(metadata: Mapping[str, str], name: str) -> float:
    """A number of the metadata; ``{general.architecture}`` in its name is what the metadata says there."""
    name = re.sub(r"\{([^{}]+)\}", lambda found: metadata.get(found[1], found[0]), name)
    try:
        return json_number(metadata[name])
    except KeyError:
        raise UsageError(f'the metadata of the file has no "{name}"', hint="give the number with --var") from None
    except ValueError:
        raise UsageError(f'"{name}" in the metadata of the file is not a number: {metadata[name][:40]}') from None


def json_number(text: str) -> float:
    """A number as metadata spell it: whole if it is written so.

    Example:
        >>> json_number("32"), json_number("0.5")
        (32, 0.5)
    """
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 20 else float(text)


def require_used(recipe: Recipe, given: Iterable[str]) -> None:
    """Refuses numbers that no rule of a recipe uses.

    Raises:
        UsageError: with the names that it does use.

    Example:
        >>> from ckptool.recipes.recipe import parse_recipe
        >>> require_used(parse_recipe(["w -> w | (h d) i -> (d h) i"]), ["h"])
        >>> require_used(parse_recipe(["w -> w | = alpha * $1"]), ["alpha"])
    """
    used = dict.fromkeys([*recipe.vars, *(name for rule in recipe.rules for name in rule.numbers)])
    unused = [name for name in given if name not in used]
    if unused:
        near = difflib.get_close_matches(unused[0], list(used), n=1)
        known = f"the rules use {', '.join(used)}" if used else "the rules use no numbers; leave it out"
        hint = f'did you mean "{near[0]}"?' if near else known
        raise UsageError(f"no rule uses {', '.join(unused)}", hint=hint)


def json_lookup(path: PathText) -> Callable[[str, str], object]:
    """Looks values up in the JSON files of a folder or beside a file: ``config.json``, ``text_config.num_heads``."""

    def lookup(file: str, name: str) -> object:
        place = locate_folder(path).path / file
        try:
            value = json.loads(read_text(place, MAX_TEXT))
        except MissingError:
            raise UsageError(f"{file} cannot be read beside the input: no such file", path=place) from None
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{file} is not JSON: {error}", path=place) from None
        for part in name.split("."):
            if not isinstance(value, dict) or part not in value:
                near = difflib.get_close_matches(part, list(value), n=1) if isinstance(value, dict) else []
                hint = f'did you mean "{near[0]}"?' if near else None
                raise UsageError(f'{file} has no "{name}"', hint=hint, path=place)
            value = value[part]
        return value

    return lookup


def source_file_captures(recipe: Recipe, folder: PathText) -> list[tuple[str, PurePath]]:
    """The files of a folder that make one checkpoint, and the prefix that the keys of each get.

    Numbers in file names lose their zeros: ``consolidated.00.pth`` gives ``rank0``.

    Raises:
        UsageError: no file fits, or numbers are missing between.
    """
    found: list[tuple[str, PurePath]] = []
    place = locate_folder(folder)
    for prefix, file in recipe.source_files:
        to, pattern = parse_pattern(prefix), parse_pattern(file)
        rows: list[tuple[list[int], str, PurePath]] = []
        for entry in place.entries():
            values = pattern.match(entry.name) if pattern.is_whole else None
            if values is not None and not entry.is_folder:
                values = {name: re.sub(r"^0+(?=\d)", "", text) for name, text in values.items()}
                order = [int(text) if text.isdecimal() else 0 for text in values.values()]
                rows.append((order, to.write(values) if to.parts else "", place.path / entry.name))
        numbers = [order[0] for order, _, _ in sorted(rows) if order]
        if not rows:
            raise UsageError(
                f"no file fits {file}", hint="the recipe's source.files says what the input is", path=place.path
            )
        if numbers and numbers != list(range(len(numbers))):
            raise UsageError(f"files that fit {file} are missing: there are {numbers}", path=place.path)
        found += [(name, path) for _, name, path in sorted(rows)]
    return found
