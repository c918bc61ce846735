"""Recipes: rules and what goes with them, from the command line, a TOML file or ckptool's own.

A TOML recipe has its keys at the top or dotted, never under a table header: a header would swallow what follows.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NoReturn

from ckptool.core.bytes import PathText
from ckptool.core.errors import MissingError, UsageError
from ckptool.core.reasons import RuleName
from ckptool.core.toml import parse_toml_text
from ckptool.recipes.reading import parse_stages
from ckptool.recipes.require import Requirement, parse_requirement
from ckptool.recipes.rules import Rule, Stage, Unmatched
from ckptool.storage.paths import is_file
from ckptool.storage.texts import read_text

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

MAX_TEXT = 10_000_000
"""Bytes of a recipe or of a JSON file beside the input."""
_NEAR = 4  # names that a hint has at most


@dataclass(frozen=True, slots=True)
class Expect:
    """What the result should be, compared with a target model.

    Attributes:
        missing: patterns of keys that only the target may have.
        unexpected: patterns of keys that only the result may have.
        coverage: the least share of the target's elements that the result fills, 0 to 1.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    coverage: float | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """A parsed request.

    Attributes:
        stages: the rules; each stage works on what the one before it made.
        name: its file, its built-in name, or "" for the command line.
        about: one sentence on what it is for.
        source_select: which dict of the input holds the weights; "auto" for ckptool's choice.
        source_files: (prefix, file name) patterns of inputs that make one checkpoint together.
        require: what must be true of the input; see `ckptool.recipes.require`.
        reverse_require: what must be true of the input of the reverse.
        vars: numbers by name, or "config.json:num_attention_heads".
        lists: which list of modules a capture such as ``{layers#}`` stands for, where that is said.
        init: (key pattern, how) for target tensors that nothing fills.
        tie: keys that share one tensor; the first that exists gives it.
        freeze: key patterns of parameters not to be trained.
        expect: what the result should be.
        output_dtype: cast the result's floats.
        output_max_shard: split the output, "5GB".
    """

    stages: tuple[Stage, ...] = ()
    name: str = ""
    about: str = ""
    source_select: str | None = None
    source_files: tuple[tuple[str, str], ...] = ()
    require: tuple[Requirement, ...] = ()
    reverse_require: tuple[Requirement, ...] = ()
    vars: Mapping[str, float | str] = field(default_factory=dict)
    lists: Mapping[str, str] = field(default_factory=dict)
    init: tuple[tuple[str, str], ...] = ()
    tie: tuple[tuple[str, ...], ...] = ()
    freeze: tuple[str, ...] = ()
    expect: Expect = Expect()
    output_dtype: str | None = None
    output_max_shard: str | None = None

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All rules, stage after stage."""
        return tuple(rule for stage in self.stages for rule in stage.rules)

    @property
    def asks_for(self) -> str | None:
        """The dict of the input that it names; None for ckptool's choice."""
        return None if self.source_select == "auto" else self.source_select

    def naming(self, given: Mapping[str, float | str]) -> tuple[Recipe, dict[str, float]]:
        """The recipe with the lists of modules that are named, and the numbers that are given with it.

        Raises:
            UsageError: a text is given for what is not a list.

        Example:
            >>> recipe, numbers = parse_recipe(["{layers#}{i=n..}.{k**} -> !"]).naming({"n": 4, "layers": "h"})
            >>> recipe.lists, numbers
            ({'layers': 'h'}, {'n': 4})
        """
        known = {name for rule in self.rules for name in rule.lists}
        lists = {name: str(value) for name, value in given.items() if name in known}
        numbers: dict[str, float] = {}
        for name, value in given.items():
            if isinstance(value, str) and name not in known:
                raise UsageError(f"{name} is not a number: {value!r}", hint=f"give one: --var {name}=2")
            if not isinstance(value, str) and name not in known:
                numbers[name] = value
        return replace(self, lists={**self.lists, **lists}), numbers


def parse_recipe(rules: Sequence[str], *, name: str = "") -> Recipe:
    """A recipe of rules alone, which form one stage (a rule ``---`` begins another).

    Raises:
        UsageError: a rule is malformed; the message has a caret under the place.

    Example:
        >>> [rule.text for rule in parse_recipe(["module. ->", ".gamma -> .weight"]).rules]
        ['module. ->', '.gamma -> .weight']
    """
    return Recipe(parse_stages(rules, name), name)


def recipe_of(arguments: Sequence[str]) -> Recipe:
    """The recipe that several ``-r`` make together: rules, files and built-in names, in order.

    Rules that stand side by side form one stage; each file is its own.

    Example:
        >>> len(recipe_of(["strip-wrappers", "model. ->", ".gamma -> .weight"]).stages)
        2
    """
    recipes: list[Recipe] = []
    inline: list[str] = []
    for argument in arguments:
        if "->" in argument or argument.strip() == "---":
            inline.append(argument)
            continue
        recipes += [parse_recipe(inline)] if inline else []
        inline = []
        recipes.append(load_recipe(argument))
    recipes += [parse_recipe(inline)] if inline else []
    return combine(_numbered(recipes))


def recipe_from(given: Recipe | str | Sequence[str] | None) -> Recipe:
    """A recipe in any form that the Python API takes: parsed, one ``-r``, several, or none.

    Example:
        >>> recipe_from(None) == Recipe(), recipe_from("module. ->").rules[0].text
        (True, 'module. ->')
    """
    if given is None:
        return Recipe()
    return given if isinstance(given, Recipe) else recipe_of([given] if isinstance(given, str) else given)


def _numbered(recipes: Sequence[Recipe]) -> list[Recipe]:
    """Rules of the command line keep counting when a file stands between them."""
    number = 0
    found = []
    for recipe in recipes:
        if not recipe.name:
            stages = []
            for stage in recipe.stages:
                rules = []
                for rule in stage.rules:
                    number += 1
                    rules.append(replace(rule, name=RuleName(number=number)))
                stages.append(replace(stage, rules=tuple(rules)))
            recipe = replace(recipe, stages=tuple(stages))
        found.append(recipe)
    return found


def combine(recipes: Sequence[Recipe]) -> Recipe:
    """One recipe that does them in order. What only one can say (select, dtype) is what the last says.

    Example:
        >>> combine([parse_recipe(["module. ->"]), parse_recipe(["fc. -> head."])]).stages[1].rules[0].text
        'fc. -> head.'
    """
    if len(recipes) == 1:
        return recipes[0]

    def last(name: str) -> Any:
        said = [getattr(recipe, name) for recipe in recipes if getattr(recipe, name) is not None]
        return said[-1] if said else None

    coverages = [recipe.expect.coverage for recipe in recipes if recipe.expect.coverage is not None]
    return Recipe(
        stages=tuple(stage for recipe in recipes for stage in recipe.stages),
        name=" + ".join(recipe.name for recipe in recipes if recipe.name),
        about=" ".join(recipe.about for recipe in recipes if recipe.about),
        source_select=last("source_select"),
        source_files=tuple(row for recipe in recipes for row in recipe.source_files),
        require=tuple(row for recipe in recipes for row in recipe.require),
        reverse_require=tuple(row for recipe in recipes for row in recipe.reverse_require),
        vars={name: value for recipe in recipes for name, value in recipe.vars.items()},
        lists={name: value for recipe in recipes for name, value in recipe.lists.items()},
        init=tuple(row for recipe in reversed(recipes) for row in recipe.init),
        tie=tuple(row for recipe in recipes for row in recipe.tie),
        freeze=tuple(row for recipe in recipes for row in recipe.freeze),
        expect=Expect(
            tuple(row for recipe in recipes for row in recipe.expect.missing),
            tuple(row for recipe in recipes for row in recipe.expect.unexpected),
            coverages[-1] if coverages else None,
        ),
        output_dtype=last("output_dtype"),
        output_max_shard=last("output_max_shard"),
    )


# ---------------------------------------------------------------------------------------------- files


def builtin_recipes() -> tuple[str, ...]:
    """The names of ckptool's own recipes.

    Example:
        >>> "strip-wrappers" in builtin_recipes()
        True
    """
    return tuple(sorted(_builtin_texts()))


@cache
def _builtin_texts() -> Mapping[str, Traversable]:
    """The files of the built-in recipes, by the recipes' names."""
    from importlib.resources import files

    found = (files("ckptool.recipes") / "builtin").iterdir()
    return {file.name.removesuffix(".toml"): file for file in found if file.name.endswith(".toml")}


def _meant(name: str) -> str | None:
    """The built-in recipe with nearly this name, or those with it as a word, as a hint; None if there is none."""
    near = difflib.get_close_matches(name, builtin_recipes(), n=1)
    near = near or [known for known in builtin_recipes() if name.lower() in known.split("-")]
    return f"did you mean {' or '.join(near[:_NEAR])}?" if near else None


def builtin_text(name: str) -> str:
    """The TOML of a built-in recipe.

    Raises:
        UsageError: no recipe has this name.
    """
    if name not in _builtin_texts():
        raise UsageError(
            f'no built-in recipe is called "{name}"', hint=_meant(name) or "list them: ckptool remap --recipes"
        )
    return _builtin_texts()[name].read_text(encoding="utf-8")


@cache
def _builtin(name: str) -> Recipe:
    return parse_toml(_builtin_texts()[name].read_text(encoding="utf-8"), name)


def load_recipe(source: PathText) -> Recipe:
    """A recipe from a TOML file, or one of ckptool's own by its name.

    Raises:
        UsageError: there is none such, it is not TOML, or it has a key or rule that is none.

    Example:
        >>> load_recipe("strip-wrappers").name
        'strip-wrappers'
    """
    name, path = str(source), PurePath(source)
    if name in _builtin_texts() and not is_file(path):
        return _builtin(name)
    try:
        text = read_text(path, MAX_TEXT)
    except MissingError:
        if path.suffix == ".toml":
            raise UsageError(f"the recipe file {name} does not exist", hint="check the spelling") from None
        hint = 'the built-in recipes: ckptool remap --recipes   a rule has an arrow: "FROM -> TO"'
        raise UsageError(f'"{name}" is not a rule, file or recipe', hint=_meant(name) or hint) from None
    return parse_toml(text, path.name, path)


def parse_toml(text: str, name: str, path: PurePath | None = None) -> Recipe:
    """A recipe from the text of a TOML file.

    Args:
        text: the TOML.
        name: how reports call it.
        path: where it was read, for errors.

    Raises:
        UsageError: it is not TOML, or it has a key or rule that is none.

    Example:
        >>> str(parse_toml('rules = ["fc. -> head."]', "mine").rules[0].name)
        'mine rule 1'
    """
    return _Table(parse_toml_text(text, name, path), name, path).recipe()


_KEYS = (
    "ckptool", "about", "rules", "unmatched", "require", "vars", "init", "tie", "freeze",
    "source.select", "source.files", "reverse.require", "expect.missing", "expect.unexpected", "expect.coverage",
    "output.dtype", "output.max_shard",
)  # fmt: skip


class _Table:
    """Takes a TOML table apart, each value with its type."""

    def __init__(self, table: Mapping[str, Any], name: str, path: PurePath | None) -> None:
        self.name, self.path = name, path
        self.flat: dict[str, Any] = {}
        for key, value in table.items():
            if key in ("source", "reverse", "expect", "output") and isinstance(value, dict):
                self.flat |= {f"{key}.{inner}": item for inner, item in value.items()}
            else:
                self.flat[key] = value

    def fail(self, what: str, hint: str | None = None) -> NoReturn:
        raise UsageError(f"{self.name}: {what}", hint=hint, path=self.path)

    def recipe(self) -> Recipe:
        for key in self.flat:
            if key not in _KEYS:
                near = difflib.get_close_matches(key, _KEYS, n=1)
                self.fail(f'there is no key "{key}" in a recipe', f'did you mean "{near[0]}"?' if near else None)
        if self.flat.get("ckptool", 1) != 1:
            self.fail(
                f"it is for version {self.flat['ckptool']} of the recipe language", "this ckptool reads version 1"
            )
        unmatched = self.typed("unmatched", str, "keep")
        if unmatched not in ("keep", "drop", "error"):
            self.fail(f'unmatched = "{unmatched}"', 'it is "keep", "drop" or "error"')
        return Recipe(
            stages=_with_unmatched(parse_stages(self.lines(), self.name), unmatched),
            name=self.name,
            about=self.typed("about", str, ""),
            source_select=self.typed("source.select", str, None),
            source_files=tuple(self.pairs("source.files", str)),
            require=self.requirements("require"),
            reverse_require=self.requirements("reverse.require"),
            vars=dict(self.pairs("vars", (int, float, str))),
            init=tuple(self.pairs("init", str)),
            tie=tuple(self.strings(row, "tie") for row in self.typed("tie", list, [])),
            freeze=self.strings(self.typed("freeze", list, []), "freeze"),
            expect=Expect(
                self.strings(self.typed("expect.missing", list, []), "expect.missing"),
                self.strings(self.typed("expect.unexpected", list, []), "expect.unexpected"),
                self.typed("expect.coverage", (int, float), None),
            ),
            output_dtype=self.typed("output.dtype", str, None),
            output_max_shard=self.typed("output.max_shard", str, None),
        )

    def typed(self, key: str, kind: type | tuple[type, ...], default: Any) -> Any:
        value = self.flat.get(key, default)
        if value is not default and (not isinstance(value, kind) or isinstance(value, bool)):
            self.fail(f"{key} has a value of another type: {value!r}")
        return value

    def lines(self) -> list[str]:
        rules = self.typed("rules", (str, list), "")
        return rules.splitlines() if isinstance(rules, str) else list(self.strings(rules, "rules"))

    def requirements(self, key: str) -> tuple[Requirement, ...]:
        return tuple(parse_requirement(text, self.name) for text in self.strings(self.typed(key, list, []), key))

    def strings(self, value: Any, key: str) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.fail(f"{key} is a list of texts", f'{key} = ["fc.*"]')
        return tuple(value)

    def pairs(self, key: str, kind: type | tuple[type, ...]) -> list[tuple[str, Any]]:
        """The rows of a small table. A dotted key that was not quoted has become nested tables: it is joined again."""
        found: list[tuple[str, Any]] = []
        tables: list[tuple[str, Any]] = [("", self.typed(key, dict, {}))]
        while tables:
            prefix, table = tables.pop(0)
            for name, value in table.items():
                if isinstance(value, dict):
                    tables.append((f"{prefix}{name}.", value))
                elif isinstance(value, bool) or not isinstance(value, kind):
                    self.fail(f"{key}.{prefix}{name} has a value of another type: {value!r}")
                else:
                    found.append((prefix + name, value))
        return found


def _with_unmatched(stages: tuple[Stage, ...], unmatched: Unmatched) -> tuple[Stage, ...]:
    return (*stages[:-1], replace(stages[-1], unmatched=unmatched)) if stages else ()
