"""Modules that a model has again, as copies of others: TransReID's branches begin as its last block and its norm."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from ckptool.commands.transplant.evidence import is_plain
from ckptool.commands.transplant.result import Transplant
from ckptool.models.entries import Filled

_LEAST_LAYERS = 3  # of a module that is known by its names and shapes alone

_Form = tuple[tuple[str, tuple[int, ...]], ...]


def copy_rules(done: Transplant) -> Iterator[tuple[str, str, int]]:
    """A rule for each module of which the model has copies, what it does in words, and how many tensors it fills."""
    source_of = {entry.key: entry.sources for entry in done.filled}
    for origin, copies in _copies(done).items():
        names = [key[len(origin) :] for key in source_of if key.startswith(origin)]
        head = source_of[origin + names[0]][0].removesuffix(names[0])
        if not all(map(is_plain, (head, origin, *copies))):
            continue
        if all(source_of[origin + name] == (head + name,) for name in names):
            puts = ", ".join(f"{put}{{k}}" for put in (origin, *copies))
            where = " and ".join(f'"{copy}"' for copy in copies)
            yield f"{head}{{k**}} -> {puts}", f'"{head}" into {where}', len(names) * len(copies)


def _copies(done: Transplant) -> dict[str, list[str]]:
    """Modules that nothing fills, by the filled module that has their names and shapes; prefixes with their last dots.

    Of several, as the blocks of a transformer, that is the last. A module of few layers counts where it stands beside
    a copy, and one module alone beside the original's list is like it: the norm behind the blocks.
    """
    forms = _forms(done)
    keys = {entry.key for entry in done.having(Filled.MISSING)} - done.new
    empty = {module: form for module, form in forms.items() if all(module + name in keys for name, _ in form)}
    filled = {entry.key for entry in done.having(Filled.FILLED)}
    places: dict[_Form, list[str]] = defaultdict(list)
    for module, form in forms.items():
        if all(module + name in filled for name, _ in form):
            places[form].append(module)
    found: dict[str, str] = {}
    for module, form in empty.items():
        layers = {name.rpartition(".")[0] for name, _ in form}
        is_inside = any(module.startswith(copy) for copy in found)
        if len(layers) >= _LEAST_LAYERS and places[form] and not is_inside and not _is_stacked(module, forms):
            found[module] = places[form][-1]
    beside = {_parent(copy): _parent(_parent(origin)) for copy, origin in found.items()}
    for module, form in empty.items():
        around = beside.get(_parent(module))
        alike = [place for place in places[form] if _parent(place) == around]
        if module not in found and len(alike) == 1:
            found[module] = alike[0]
    copies: dict[str, list[str]] = {}
    for copy, origin in found.items():
        copies.setdefault(origin, []).append(copy)
    return copies


def _forms(done: Transplant) -> dict[str, _Form]:
    """The names and shapes of every module of the model, the outer modules first."""
    found: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for entry in done.entries:
        for at, char in enumerate(entry.key):
            if char == ".":
                found.setdefault(entry.key[: at + 1], []).append((entry.key[at + 1 :], entry.spec.shape))
    return {module: tuple(sorted(found[module])) for module in sorted(found, key=lambda module: module.count("."))}


def _is_stacked(module: str, forms: Mapping[str, _Form]) -> bool:
    """True for equal blocks, and what is in one of them: more layers than the source has, or a decoder of its own."""
    first = forms.get(f"{module}0.")
    if first is not None and forms.get(f"{module}1.") == first:
        return True
    while module:
        parent = _parent(module)
        number = module[len(parent) : -1]
        if number.isdecimal():
            others = (forms.get(f"{parent}{other}.") for other in (int(number) - 1, int(number) + 1))
            if any(other is not None and _are_alike(other, forms[module]) for other in others):
                return True
        module = parent
    return False


def _are_alike(one: _Form, other: _Form) -> bool:
    """True for blocks that have most of their names in common, whatever one has besides."""
    names, others = ({name for name, _ in form} for form in (one, other))
    return 2 * len(names & others) > max(len(names), len(others))


def _parent(module: str) -> str:
    """``base.blocks.`` of ``base.blocks.11.``"""
    head = module[:-1].rpartition(".")[0]
    return f"{head}." if head else ""
