"""What a transplant decided, entry by entry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from ckptool.commands.automatic import Automatic
from ckptool.commands.transplant.hooked import versions_under
from ckptool.commands.transplant.shares import Share, module_shares
from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.keys import Pattern
from ckptool.core.plan import Plan
from ckptool.core.reasons import OtherPlace
from ckptool.core.spec import TensorSpec
from ckptool.core.ties import recorded_ties
from ckptool.facts.entries import entries_of
from ckptool.matching.prefixes import Swap
from ckptool.matching.result import Confidence
from ckptool.models import Target, Verdict
from ckptool.models.entries import Entry, Filled, Mismatch
from ckptool.models.target import stated_grids
from ckptool.recipes.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Asked:
    """What a transplant is asked to do.

    Attributes:
        recipe: how source keys become the target's; rules that were found for `match` are its last.
        drop: key patterns of source tensors to leave out.
        mismatch: what to do about tensors of another shape: leave the model's own, make it a problem, or make them fit
            by the method that is usual for such a tensor.
        fits: (key pattern of the target, "grid(prefix=1)"), which come before `mismatch`.
        init: (key pattern of the target, "normal(0.001)") for tensors that nothing fills, before the recipe's.
        new: key patterns of the target's tensors that are meant to start anew: no gate counts them as missing.
        seed: of the model's own init, where nothing fills a tensor.
        only_loaded: the output holds only what came from the source.
        vars: numbers for the recipe, and names of lists of modules.
        wrap: the output nests the state dict under this key.
        strict: what torch would not load strictly is unmet.
        min_coverage: the least share of the target's elements, 0 to 1; less is unmet.
        match: find rules from names, shapes and order, and take those that are as sure as this, or surer.
        live: the tensors go into the module itself, and not into a file that torch loads.
    """

    recipe: Recipe = field(default_factory=Recipe)
    drop: tuple[str, ...] = ()
    mismatch: Mismatch = "skip"
    fits: tuple[tuple[str, str], ...] = ()
    init: tuple[tuple[str, str], ...] = ()
    new: tuple[str, ...] = ()
    seed: int = 0
    only_loaded: bool = False
    vars: Mapping[str, float | str] | None = None
    wrap: str | None = None
    strict: bool = False
    min_coverage: float | None = None
    match: Confidence | None = None
    live: bool = False


@dataclass(frozen=True, eq=False)
class Transplant:
    """A transplant, decided on headers.

    Attributes:
        plan: the output: a complete state dict of the target, or only what was loaded.
        target: the model.
        entries: every tensor of the target, in its order.
        unexpected: tensors of the source, as the rules made them, that the target does not have.
        mapped: all tensors of the source under the target's names, fitted where they had to be.
        swap: prefixes that were seen through, in the source's keys or in what the rules made of them.
        freeze: parameters that came from the source whole, or those that the recipe freezes.
        asked: what was asked for.
        match: the rules that were found, where that was asked for; they are the last of the recipe's.
        lost: keys that a load hook of the model would fill in a way that cannot be followed.
        under: a prefix of the source's keys under which the rules apply.
        advice: rules that put in its place what names alone put nowhere.
        suggested: what would load more, each with its command.
    """

    plan: Plan
    target: Target
    entries: tuple[Entry, ...]
    unexpected: tuple[TensorSpec, ...]
    mapped: Mapping[str, TensorSpec]
    swap: Swap
    freeze: tuple[str, ...]
    asked: Asked
    match: Automatic | None = None
    lost: tuple[str, ...] = ()
    under: str = ""
    advice: tuple[str, ...] = ()
    suggested: tuple[Note, ...] = ()

    @property
    def source(self) -> Checkpoint:
        """Where the weights come from."""
        return self.plan.inputs[0]

    def having(self, *statuses: Filled) -> tuple[Entry, ...]:
        """The target tensors of some statuses."""
        return tuple(entry for entry in self.entries if entry.status in statuses)

    @cached_property
    def new(self) -> frozenset[str]:
        """Keys of the target that nothing fills and that are meant to start anew."""
        patterns = [Pattern.parse(text) for text in self.asked.new]
        left = self.having(Filled.MISSING, Filled.MISMATCHED) if patterns else ()
        return frozenset(entry.key for entry in left if any(pattern.matches(entry.key) for pattern in patterns))

    @cached_property
    def grids(self) -> list[tuple[int, int]]:
        """The grids of patches that layers of the model state."""
        return stated_grids(self.target)

    @property
    def wants_names(self) -> bool:
        """True if other names could help: something is missing that matters, and something is left over."""
        left = self.having(Filled.MISSING)
        missing = [entry for entry in left if not entry.is_harmless and entry.key not in self.new]
        counters = [entry for entry in self.having(Filled.MISSING) if entry.is_counter]
        wanted = bool(counters) and not self.as_it_is.strict and counters[0].key in self.as_it_is.missing
        return bool(missing and (self.unexpected or self.withheld)) or wanted

    @property
    def withheld(self) -> tuple[str, ...]:
        """Keys of the source that the model has too, and that shapes or other names place elsewhere."""
        return tuple(row.source.key for row in self.plan.dropped if isinstance(row.reason, OtherPlace))

    @property
    def modules(self) -> Mapping[str, Share]:
        """How much of each module that holds tensors itself is loaded, by its name and in the target's order."""
        return module_shares(self.entries)

    @property
    def filled(self) -> tuple[Entry, ...]:
        """The target tensors whose elements come from the source."""
        return tuple(entry for entry in self.entries if entry.is_filled)

    @property
    def tensors(self) -> tuple[int, int]:
        """(filled, all) tensors of the target."""
        return len(self.filled), len(self.entries)

    @property
    def elements(self) -> tuple[int, int]:
        """(filled, all) elements of the target."""
        return sum(entry.covered for entry in self.entries), sum(entry.spec.elements for entry in self.entries)

    @property
    def weighed(self) -> tuple[int, int]:
        """(filled, all) elements of the target, the counters of BatchNorms aside: nothing depends on them."""
        return weighed(self.entries)

    @property
    def coverage(self) -> float:
        """Share of the target's elements that come from the source, 0 to 1; the counters of BatchNorms aside."""
        filled, whole = self.weighed
        return filled / whole if whole else 0.0

    @property
    def batchnorms(self) -> tuple[str, ...]:
        """Modules with statistics from the source whose parameters are all frozen, or that have none: they need `eval`.

        A recipe that names what is frozen also names the norms without parameters.
        """
        if not self.freeze:
            return ()
        named, patterns = set(self.freeze), [Pattern.parse(text) for text in self.asked.recipe.freeze]
        learned = [
            entry for entry in self.entries if not (entry.kind == "buffer" or entry.is_statistic or entry.is_counter)
        ]
        with_parameters = {entry.key.rpartition(".")[0] for entry in learned}
        partly = {entry.key.rpartition(".")[0] for entry in learned if entry.key not in named}
        means = [entry.key for entry in self.filled if entry.key.rpartition(".")[2] == "running_mean"]
        found = []
        for key in means:
            module = key.rpartition(".")[0]
            bare = not patterns or any(pattern.matches(key) for pattern in patterns)
            if module not in partly and (module in with_parameters or bare):
                found.append(module)
        return tuple(found)

    @cached_property
    def verdict(self) -> Verdict:
        """What `load_state_dict(strict=True)` says of what the rules and fits made of the source: torch is asked."""
        entries = () if self.asked.recipe.stages else entries_of(self.source)
        return _ask(self.target, self.mapped, self._versions(), entries)

    @cached_property
    def as_it_is(self) -> Verdict:
        """What `load_state_dict(strict=True)` says of the source unchanged, its module versions included."""
        aliases = recorded_ties(self.source)  # keys that the file itself does not hold
        specs = {key: tensor.spec for key, tensor in self.source.tensors.items() if key not in aliases}
        if specs == self.mapped and not self.asked.recipe.stages:
            return self.verdict
        return _ask(self.target, specs, self.source.module_versions, entries_of(self.source))

    def _versions(self) -> Mapping[str, int] | None:
        """The source's module versions under the target's names."""
        versions = self.source.module_versions
        if versions is None or not (self.swap or self.asked.recipe.stages):
            return versions
        steps = (step for step in self.plan.steps if step.target.key in self.mapped)
        return versions_under(self.source, steps)


def weighed(entries: Iterable[Entry]) -> tuple[int, int]:
    """(filled, all) elements, the counters of BatchNorms aside."""
    counted = [entry for entry in entries if not entry.is_counter]
    return sum(entry.covered for entry in counted), sum(entry.spec.elements for entry in counted)


def _ask(
    target: Target, specs: Mapping[str, TensorSpec], versions: Mapping[str, int] | None, entries: tuple[str, ...]
) -> Verdict:
    from ckptool.models import strict_verdict

    return strict_verdict(target, specs, versions, entries)
