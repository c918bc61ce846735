"""The automatic match as a recipe: what ``--auto`` and ``--match auto`` put behind the rules that were given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ckptool.matching.match import match
from ckptool.matching.result import Confidence, MatchReport
from ckptool.recipes.expand import expand
from ckptool.recipes.group import FitOp
from ckptool.recipes.recipe import Recipe, combine, parse_toml
from ckptool.spec import TensorSpec

Specs = Mapping[str, TensorSpec]


@dataclass(frozen=True, slots=True, eq=False)
class Automatic:
    """Rules that were found, and why.

    Attributes:
        recipe: the rules that were given, then those that were found.
        report: what was found, of every confidence.
        accept: the least confidence of what the recipe does.
    """

    recipe: Recipe
    report: MatchReport
    accept: Confidence

    @property
    def text(self) -> str:
        """The rules that were found as a recipe: TOML, with the evidence in comments."""
        return self.report.recipe(self.accept)


def automatic(
    given: Recipe,
    sources: Specs | Sequence[Specs],
    target: Specs,
    *,
    accept: Confidence = Confidence.ALIGNED,
    prefixes: Sequence[str] = (),
    vars: Mapping[str, float] | None = None,
    modules: Mapping[str, str] | None = None,
    fit: FitOp | None = None,
) -> Automatic:
    """Match what a recipe makes of a source with a target.

    Args:
        given: rules that come first; what they make is matched.
        sources: key -> spec of each input.
        target: key -> spec of what is to come out.
        accept: the least confidence of what is done.
        prefixes: put before the keys of each input.
        vars: numbers for the rules given.
        modules: the target's module path -> class, where it is a model.
        fit: makes the ops of ``fit`` in the rules given.

    Example:
        >>> old, new = ({key: TensorSpec(key, "float32", (3, 5))} for key in ("module.fc.weight", "head.fc.weight"))
        >>> [rule.text for rule in automatic(Recipe(), old, new).recipe.rules]
        ['module.fc.weight -> head.fc.weight']
    """
    first = expand(replace(given, init=(), tie=()), sources, prefixes=prefixes, vars=vars, fit=fit)
    short = None if modules is None else {path: name.rpartition(".")[2] for path, name in modules.items()}
    made = {step.target.key: step.target for step in first.steps}
    report = match(made, target, target_modules=short, accept=accept)
    found = parse_toml(report.recipe(accept), "match")
    return Automatic(combine([given, found]) if given != Recipe() else found, report, accept)
