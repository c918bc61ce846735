"""Pairs of models with the truth: which source tensors each target tensor is made of.

A pair is one function that builds both sides, full size on the meta device for the benchmark, small and real for
`prove.py`, which shows that the truth is true: equal outputs. The truth itself is a recipe, expanded on the source.
"""

from __future__ import annotations

import importlib
import importlib.util
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from ckptool.core.keys import Pattern
from ckptool.core.plan import Step, sources_of
from ckptool.core.spec import TensorSpec
from ckptool.recipes.expand import expand
from ckptool.recipes.recipe import Recipe, recipe_of
from ckptool.recipes.reverse import reverse

Specs = dict[str, TensorSpec]
State = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Two:
    """Both sides of a pair, and what is true of them.

    Attributes:
        source: a module, or a state dict of a model that has no package here.
        target: likewise.
        rules: the true recipe, rules and built-in names; None if nothing belongs together.
        vars: of the recipe.
        is_backwards: the recipe leads from the target to the source.
        source_file: what the source's state dict is written as.
        target_file: likewise, for targets that are no loadable module.
        missing: patterns of target keys that nothing in the source belongs to.
        undecided: patterns of target keys whose source no header tells; not finding them is no miss.
        hidden: patterns of target keys whose layout no header tells, though the pair is plain.
        ask: runs the source for the proof; without it there is no proof by outputs.
        ask_target: runs the target, if differently.
        rel: how close the outputs must be.
        proof: how the truth is known, where it is not by outputs.
    """

    source: Any
    target: Any
    rules: Sequence[str] | None
    vars: Mapping[str, float] = field(default_factory=dict)
    is_backwards: bool = False
    source_file: Callable[[State], State] = dict
    target_file: Callable[[State], State] = dict
    missing: Sequence[str] = ()
    undecided: Sequence[str] = ()
    hidden: Sequence[str] = ()
    ask: Callable[[Any], Any] | None = None
    ask_target: Callable[[Any], Any] | None = None
    rel: float = 2e-5
    proof: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """Target tensors and the source tensors that they are made of: one to one nearly always.

    Attributes:
        targets: in the source's order.
        sources: likewise.
        steps: how, for each target.
        is_group: fused, split or stacked, or only a part of the source.
        is_hidden: no header tells the layout.
        is_undecided: no header tells the source.
    """

    targets: tuple[str, ...]
    sources: tuple[str, ...]
    steps: tuple[Step, ...]
    is_group: bool = False
    is_hidden: bool = False
    is_undecided: bool = False

    @property
    def layout(self) -> str:
        """In the recipe language, as far as one step says it."""
        ops = {getattr(getattr(step.value, "op", None), "text", "") for step in self.steps}
        return re.sub(r"\.\.\.\d+( \.\.\.\d+)*", "...", " ; ".join(sorted(ops)))


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A pair as a matcher sees it, and the truth.

    Attributes:
        name: of the pair.
        source: specs in file order.
        target: likewise.
        source_modules: class names by module path; None if there is no model.
        target_modules: likewise.
        truth: the links.
    """

    name: str
    source: Specs
    target: Specs
    source_modules: dict[str, str] | None
    target_modules: dict[str, str] | None
    truth: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered pair: what it needs, how both sides are built, and how its listings are changed afterwards."""

    name: str
    needs: tuple[str, ...]
    build: Callable[[bool], Two]
    change: Callable[[Case], Case] | None = None


PAIRS: dict[str, Entry] = {}


def pair(name: str, *needs: str) -> Callable[[Callable[[bool], Two]], Callable[[bool], Two]]:
    """Registers a function of `small` that builds both sides."""

    def register(build: Callable[[bool], Two]) -> Callable[[bool], Two]:
        assert name not in PAIRS, name
        PAIRS[name] = Entry(name, ("torch", *needs), build)
        return build

    return register


def variant(name: str, of: str, change: Callable[[Case], Case]) -> None:
    """Registers a pair with other listings: the truth stays."""
    assert name not in PAIRS, name
    PAIRS[name] = replace(PAIRS[of], name=name, change=change)


def entries(names: Sequence[str] = (), *, blind: bool = False) -> Iterator[Entry]:
    """The pairs whose packages are installed; those of `names` only, if there are any; with `blind` the newest, too."""
    modules = "vision timm text llama towers hand twins files more unseen"
    strangers = "strangers"
    fresh = "vision detect segment text llama sound video more diffusion libs keras strange"
    held = "held held_vision held_text held_detect held_hand held_strange held_tensorflow held_diffusion held_ties"
    fresh = " ".join(f"fresh_{name}" for name in fresh.split())
    newest = " ".join(f"blind_{number}" for number in range(1, 24)) if blind else ""
    for module in f"{modules} {held} {strangers} {fresh} {newest}".split():
        importlib.import_module(f"tests.bench.match.pairs_{module}")
    for entry in PAIRS.values():
        wanted = not names or any(name in entry.name for name in names)
        if wanted and all(importlib.util.find_spec(package) for package in entry.needs):
            yield entry


def case_of(entry: Entry) -> Case:
    """The pair at full size, as specs."""
    import torch

    prepare()
    with torch.device("meta"):
        two = entry.build(False)
    source = specs_of(two.source_file(state_of(two.source)))
    target = specs_of(two.target_file(state_of(two.target)))
    # a file with other keys than the model's has no modules to go with it
    same_source, same_target = (set(specs) == set(state_of(model))
                                for specs, model in ((source, two.source), (target, two.target)))  # fmt: skip
    found = Case(
        entry.name,
        source,
        target,
        modules_of(two.source) if same_source else None,
        modules_of(two.target) if same_target else None,
        tuple(truth_of(two, source, target)),
    )
    return entry.change(found) if entry.change else found


def recipe_of_two(two: Two) -> Recipe:
    """The true recipe, forwards."""
    recipe = recipe_of(two.rules or [])
    return reverse(recipe).recipe if two.is_backwards else recipe


def truth_of(two: Two, source: Specs, target: Specs) -> list[Link]:
    """The links; an `AssertionError` if the recipe does not fill what it should."""
    if two.rules is None:
        return []
    found = expand(recipe_of_two(two), source, vars=two.vars)
    assert not found.problems, [(problem.message, problem.keys[:3]) for problem in found.problems]
    there = target.keys()
    steps = [step for step in found.steps if step.target.key in there and any(sources_of(step.value))]
    for step in steps:
        key = step.target.key
        assert step.target.shape == target[key].shape or any_of(two.missing, [key]), (step.target, target[key])
    steps = [step for step in steps if step.target.shape == target[step.target.key].shape]
    absent = [key for key in target if key not in {step.target.key for step in steps}]
    unsaid = [key for key in absent if not any_of(two.missing, [key])]
    assert not unsaid, f"nothing for {unsaid[:8]}"
    return [_link(group, two, source) for group in _grouped(steps)]


def _grouped(steps: list[Step]) -> list[list[Step]]:
    """Steps that share a source, together."""
    group_of: dict[str, list[Step]] = {}
    for step in steps:
        sources = {source.key for source in sources_of(step.value)}
        joined = [step]
        for old in {id(group_of[key]): group_of[key] for key in sources if key in group_of}.values():
            joined = old + joined
        for member in joined:
            for source in sources_of(member.value):
                group_of[source.key] = joined
    return list({id(group): group for group in group_of.values()}.values())


def _link(group: list[Step], two: Two, specs: Specs) -> Link:
    targets = tuple(step.target.key for step in group)
    sources = tuple(dict.fromkeys(source.key for step in group for source in sources_of(step.value)))
    is_group = max(len(targets), len(sources)) > 1 or group[0].target.elements != specs[sources[0]].elements
    return Link(targets, sources, tuple(group), is_group, any_of(two.hidden, targets), any_of(two.undecided, targets))


@cache
def _pattern(text: str) -> Pattern:
    return Pattern.parse(text)


def any_of(patterns: Sequence[str], keys: Sequence[str]) -> bool:
    """True if a pattern matches a key."""
    return any(_pattern(text).matches(key) for text in patterns for key in keys)


# ---------------------------------------------------------------------------------------------- models


@cache
def prepare() -> Any:
    """Makes torchvision importable beside a CPU build of torch (as `tests/conftest.py` does)."""
    import torch

    library = None
    if importlib.util.find_spec("torchvision"):
        try:
            import torchvision
        except RuntimeError:
            library = torch.library.Library("torchvision", "FRAGMENT")
            for name in ("nms", "qnms"):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            import torchvision  # noqa: F401
    return library


def state_of(model: Any) -> State:
    """A module's state dict, or the dict itself."""
    state: State = model if isinstance(model, Mapping) else model.state_dict()
    return state


def specs_of(state: State) -> Specs:
    """The specs of a state dict."""
    return {
        key: TensorSpec(key, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        for key, tensor in state.items()
    }


def modules_of(model: Any) -> dict[str, str] | None:
    """The class name of each module; None for a mere dict."""
    if isinstance(model, Mapping):
        return None
    return {path: type(module).__name__ for path, module in model.named_modules() if path}


def image(size: int = 32) -> Any:
    """Two images, for proofs."""
    import torch

    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def tokens(vocabulary: int = 30, length: int = 7) -> Any:
    """Two rows of tokens, for proofs."""
    import torch

    return torch.randint(1, vocabulary, (2, length), generator=torch.Generator().manual_seed(1))


def renamed(rules: Sequence[str]) -> Callable[[State], State]:
    """A change of a state dict's names by rules without layouts."""

    def rename(state: State) -> State:
        found = expand(recipe_of(list(rules)), specs_of(state))
        assert not found.problems, found.problems
        return {step.target.key: state[next(iter(sources_of(step.value))).key] for step in found.steps}

    return rename


# ---------------------------------------------------------------------------------------------- listings


def shuffled(case: Case, side: str = "target", seed: int = 0) -> Case:
    """One side's tensors in random order."""
    specs: Specs = getattr(case, side)
    keys = list(specs)
    random.Random(seed).shuffle(keys)
    return _with(case, side, keys)


def sorted_keys(case: Case, side: str = "source") -> Case:
    """One side as safetensors lists it: by the size of the dtype, then by name ("10" before "2"); without modules."""
    specs: Specs = getattr(case, side)
    return _with(case, side, sorted(specs, key=lambda key: (specs[key].dtype != "int64", key)))


def both_sorted(case: Case) -> Case:
    """Both sides as safetensors lists them."""
    return sorted_keys(sorted_keys(case, "source"), "target")


def headers_only(case: Case) -> Case:
    """Without module classes, as two files are."""
    return replace(case, source_modules=None, target_modules=None)


def _with(case: Case, side: str, keys: Sequence[str]) -> Case:
    specs: Specs = getattr(case, side)
    listed = {key: specs[key] for key in keys}
    if side == "source":
        return replace(case, source=listed, source_modules=None)
    return replace(case, target=listed, target_modules=None)
