"""What lies beside a recipe's input: numbers in its JSON files, and further files of one checkpoint."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from ckptool.core.errors import UsageError
from ckptool.recipes.pattern import parse_pattern
from ckptool.recipes.recipe import Recipe, read_text
from ckptool.recipes.require import require_files


def resolve_vars(
    recipe: Recipe, lookup: Callable[[str, str], object], given: Mapping[str, float] | None = None
) -> dict[str, float]:
    """The numbers of a recipe's vars.

    Args:
        recipe: its texts "config.json:num_attention_heads" are looked up.
        lookup: called with "config.json" and "num_attention_heads".
        given: values that come first (--var).

    Raises:
        UsageError: a value is no number, or a text no ``FILE:NAME``.
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
            raise UsageError(f"vars.{name} is no number: {number!r}", hint=f"give it: --var {name}=...")
        found[name] = number
    return found


def numbers_beside(recipe: Recipe, path: Path, given: Mapping[str, float] | None = None) -> dict[str, float]:
    """The numbers of a recipe's vars, some of them from the JSON files beside a checkpoint.

    Args:
        recipe: it says which.
        path: the checkpoint, a file or a folder.
        given: values that come first (--var).

    Raises:
        UsageError: a number is missing, or the files say that a precondition of the recipe is not met.
    """
    folder = path if path.is_dir() else path.parent
    require_files(recipe.require, folder, recipe.name, read_text)
    return resolve_vars(recipe, json_lookup(folder), given)


def json_lookup(folder: Path) -> Callable[[str, str], object]:
    """Looks values up in the JSON files of a folder: ``config.json``, ``text_config.num_attention_heads``."""

    def lookup(file: str, path: str) -> object:
        place = folder / file
        try:
            value = json.loads(read_text(place))
        except OSError as error:
            raise UsageError(f"{file} cannot be read beside the input: {error.strerror}", path=place) from None
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{file} is not JSON: {error}", path=place) from None
        for part in path.split("."):
            if not isinstance(value, dict) or part not in value:
                near = difflib.get_close_matches(part, list(value), n=1) if isinstance(value, dict) else []
                hint = f'did you mean "{near[0]}"?' if near else None
                raise UsageError(f'{file} has no "{path}"', hint=hint, path=place)
            value = value[part]
        return value

    return lookup


def source_file_captures(recipe: Recipe, folder: Path) -> list[tuple[str, Path]]:
    """The files of a folder that make one checkpoint, and the prefix that the keys of each get.

    Numbers in file names lose their zeros: ``consolidated.00.pth`` gives ``rank0``.

    Raises:
        UsageError: no file fits, or numbers are missing between.
    """
    found: list[tuple[str, Path]] = []
    for prefix, file in recipe.source_files:
        to, pattern = parse_pattern(prefix), parse_pattern(file)
        rows: list[tuple[list[int], str, Path]] = []
        for path in sorted(folder.iterdir()):
            values = pattern.match(path.name) if pattern.is_whole else None
            if values is not None and path.is_file():
                values = {name: re.sub(r"^0+(?=\d)", "", text) for name, text in values.items()}
                order = [int(text) if text.isdecimal() else 0 for text in values.values()]
                rows.append((order, to.write(values) if to.parts else "", path))
        numbers = [order[0] for order, _, _ in sorted(rows) if order]
        if not rows:
            raise UsageError(
                f"no file fits {file}", hint="the recipe's source.files says what the input is", path=folder
            )
        if numbers and numbers != list(range(len(numbers))):
            raise UsageError(f"files that fit {file} are missing: there are {numbers}", path=folder)
        found += [(name, path) for _, name, path in sorted(rows)]
    return found
