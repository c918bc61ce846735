"""Everything in two checkpoints that is not a selected tensor: the epoch, the optimizer, metadata, module versions.

What only a file format adds is no difference: a state dict is the same weights as `.pth` and as `.safetensors`, though
only one of them has module versions and only the other a place for metadata. What one side lacks is a note.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest

from ckptool.commands.diff.explaining import name_of
from ckptool.commands.diff.objects import tensor_pairs
from ckptool.commands.diff.result import ExtraChange, Status
from ckptool.core.checkpoint import Checkpoint, Extra, Note
from ckptool.core.initial import INITIAL_KEY
from ckptool.core.tensor import Tensor
from ckptool.engine.reading import Reader
from ckptool.formats.pickle.objects import Call, Global

TensorPairs = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class ExtraPair:
    """One entry on both sides. `pairs` are the tensors to compare in it; None if it differs whatever they hold."""

    name: str
    old: Extra
    new: Extra
    pairs: TensorPairs | None

    def change(self, differing: int) -> ExtraChange:
        """The change to report, given how many of its tensors differ."""
        new = self.new.text
        if new == self.old.text:
            new += f" ({differing} of {len(self.pairs)} tensors differ)" if self.pairs else " (it differs inside)"
        return ExtraChange(Status.CHANGED, self.name, self.old.text, new)


def pair_extras(old: Checkpoint, new: Checkpoint) -> tuple[list[ExtraPair], list[ExtraChange]]:
    """Entries on both sides, with the tensors that are to be compared; and entries on one side only."""
    both, single = [], []
    old_nodes, new_nodes = _tensors_by_object(old), _tensors_by_object(new)
    olds, news = _by_name(old), _by_name(new)
    for name in dict.fromkeys([*olds, *news]):
        for a, b in zip_longest(olds.get(name, ()), news.get(name, ())):
            if b is None:
                single.append(ExtraChange(Status.REMOVED, name, a.text, None))
            elif a is None:
                single.append(ExtraChange(Status.ADDED, name, None, b.text))
            elif a.node is not None and b.node is not None:
                both.append(ExtraPair(name, a, b, tensor_pairs(a.node, b.node, old_nodes, new_nodes)))
            else:
                both.append(ExtraPair(name, a, b, _pairs_by_name(a, b, old, new)))
    return both, single


def _by_name(checkpoint: Checkpoint) -> dict[str, list[Extra]]:
    """The extras by name; those inside the selected dict without the name of that dict."""
    found: dict[str, list[Extra]] = {}
    inside = f"{checkpoint.selection.name}." if checkpoint.selection.name else ""
    for extra in checkpoint.extras:
        found.setdefault(extra.name.removeprefix(inside), []).append(extra)
    return found


def _tensors_by_object(checkpoint: Checkpoint) -> dict[int, Tensor]:
    weights = () if checkpoint.columns is not None else checkpoint.tensors.values()  # columns are made of no objects
    tensors = (*weights, *checkpoint.other_tensors.values())
    return {id(tensor.node): tensor for tensor in tensors if tensor.node is not None}


def _pairs_by_name(a: Extra, b: Extra, old: Checkpoint, new: Checkpoint) -> TensorPairs | None:
    """For formats without objects: the text, and the tensors below it by name."""
    olds, news = _below(a, old), _below(b, new)
    if a.text != b.text or olds.keys() != news.keys():
        return None
    pairs = [(olds[name], news[name]) for name in olds]
    return pairs if all((x.dtype, x.shape) == (y.dtype, y.shape) for x, y in pairs) else None


def _below(extra: Extra, checkpoint: Checkpoint) -> dict[str, Tensor]:
    size = len(extra.name)
    return {
        name[size:]: tensor
        for name, tensor in checkpoint.other_tensors.items()
        if name == extra.name or name.startswith(f"{extra.name}.")
    }


def is_one_file_twice(old: Checkpoint, new: Checkpoint, reader: Reader) -> bool:
    """True if both are single files of equal bytes: then nothing differs, whatever cannot be looked into."""
    if len(old.files) != 1 or len(new.files) != 1 or old.nbytes != new.nbytes:
        return False
    a, b = bytearray(1 << 20), bytearray(1 << 20)
    for at in range(0, old.nbytes, len(a)):
        size = min(len(a), old.nbytes - at)
        reader.read_into(old.files[0], at, memoryview(a)[:size])
        reader.read_into(new.files[0], at, memoryview(b)[:size])
        if a != b:
            return False
    return True


def same_quantizer(old: Tensor, new: Tensor) -> bool:
    """False for quantized tensors of different schemes; scales and zero points that are tensors are parts of them."""
    if old.layout != "quantized" or new.layout != "quantized":
        return True
    a, b = _quantizer(old.node), _quantizer(new.node)
    return a is None or b is None or _same_scheme(a, b)


def _same_scheme(a: tuple[object, ...], b: tuple[object, ...]) -> bool:
    """Compares all but tensors."""
    plain_a, plain_b = ([None if type(x) is Call else x for x in scheme] for scheme in (a, b))
    return tensor_pairs(plain_a, plain_b, {}, {}) is not None


def _quantizer(node: object) -> tuple[object, ...] | None:
    """The scheme in torch's ``_rebuild_qtensor(storage, offset, size, stride, scheme, ...)``, through a Parameter."""
    for _ in range(3):
        if type(node) is not Call or type(node.fn) is not Global or type(node.args) is not tuple or not node.args:
            return None
        if node.fn.name == "_rebuild_qtensor":
            scheme = node.args[4] if len(node.args) > 4 else None
            return scheme if type(scheme) is tuple else None
        node = node.args[0]
    return None


# ------------------------------------------------------------------------------ what loading would run, metadata


def code_changes(old: Checkpoint, new: Checkpoint) -> Iterator[ExtraChange]:
    """Classes and functions that may run code, where only one side's pickle names them."""
    sides = [{use.name: use for use in side.globals if use.risk != "harmless"} for side in (old, new)]
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        a, b = (side[name].risk if name in side else None for side in sides)
        if "dangerous" in (a, b) and (a is None or b is None):
            yield ExtraChange(Status.ADDED if a is None else Status.REMOVED, f"loading runs {name}", a, b)


def metadata_changes(old: Checkpoint, new: Checkpoint) -> Iterator[ExtraChange]:
    """Entries of safetensors' `__metadata__` that differ, where both sides can have some."""
    if not (old.format.has_metadata and new.format.has_metadata):
        return
    for name in dict.fromkeys([*old.metadata, *new.metadata]):
        a, b = old.metadata.get(name), new.metadata.get(name)
        if a != b and name != INITIAL_KEY:  # a fact says it
            status = Status.ADDED if a is None else Status.REMOVED if b is None else Status.CHANGED
            yield ExtraChange(status, f"metadata.{name}", a, b)


def version_changes(old: Checkpoint, new: Checkpoint, old_prefix: str, new_prefix: str) -> Iterator[ExtraChange]:
    """Module versions that differ, as one entry; of modules that both sides have."""
    if old.module_versions is None or new.module_versions is None:
        return
    a, b = _stripped(old.module_versions, old_prefix), _stripped(new.module_versions, new_prefix)
    differing = [name for name in a if name in b and a[name] != b[name]]
    if differing:
        yield ExtraChange(Status.CHANGED, "module versions", _versions_text(a, differing), _versions_text(b, differing))


def _stripped(versions: Mapping[str, int], prefix: str) -> dict[str, int]:
    """The versions by module name below the prefix."""
    if not prefix:
        return dict(versions)
    below = {name[len(prefix) :]: version for name, version in versions.items() if name.startswith(prefix)}
    return {"": versions[prefix[:-1]], **below} if prefix[:-1] in versions else below


def _versions_text(versions: Mapping[str, int], differing: list[str]) -> str:
    name = differing[0]
    first = f"{name or 'the whole model'}: {versions[name]}"
    return first + (f", and {len(differing) - 1:,} more" if len(differing) > 1 else "")


def format_notes(old: Checkpoint, new: Checkpoint) -> Iterator[Note]:
    """What only one side has because the other is written otherwise."""
    sides = (old, new)
    for at, side in enumerate(sides):
        other, name = sides[1 - at], name_of(sides, at)
        if side.module_versions is not None and other.module_versions is None:
            why = "" if other.format.has_versions else f"; {other.format} has no place for them"
            yield Note(
                f"only {name} records module versions{why}",
                "they tell torch how to load older files; no weight depends on them",
            )
        own = [entry for entry in side.metadata if entry not in ("format", "total_size", INITIAL_KEY)]
        if own and not other.format.has_metadata:
            yield Note(
                f"only {name} has metadata: {', '.join(own[:4])}{', ...' if len(own) > 4 else ''}",
                f"{other.format} has no place for it",
            )
