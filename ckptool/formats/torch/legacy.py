"""torch's format before 1.6 (and `_use_new_zipfile_serialization=False`): five pickles, then the storages one by one.

The pickles are: a magic number, the protocol 1001, facts about the writing machine, the object, and the list of storage
names. Each storage follows as its count of elements (8 bytes, little-endian) and its elements, little-endian on every
machine. Only the counts are read; all offsets follow from the sizes in the object.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from ckptool.core.bytes import ByteSource, OpenBytes
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import UnreadableError, naming
from ckptool.core.format import Format
from ckptool.core.observations import Observation, TrailingBytes
from ckptool.core.spec import DTYPES
from ckptool.core.tensor import Storage
from ckptool.formats.pickle.loading import Loaded, load, merge_globals
from ckptool.formats.pickle.objects import Persistent
from ckptool.formats.torch.arrays import array_ref
from ckptool.formats.torch.edit import each_below
from ckptool.formats.torch.storage import ArrayBytes, StorageRef, is_storage_id, storage_id
from ckptool.formats.torch.tree import interpret

TORCH_LEGACY = Format("torch legacy", is_pickle=True, has_versions=True)
MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
MAX_PICKLES = 256 << 20
_FIRST_READ = 4 << 20


def open_legacy(source: ByteSource, select: str | None = None) -> Checkpoint:
    """Open a torch file of the format before 1.6.

    Args:
        source: the file.
        select: dotted path of the dict to take as the weights; None to choose.

    Raises:
        UnreadableError: it is damaged, cut off, or of the still older tar format.
        UsageError: nothing is under `select`.
    """
    with source.open() as file, naming(source.path):
        pickles = _pickles(file)
        root = pickles[3].value
        storages = _Storages(source, file, root, pickles[4])
        nbytes = pickles[3].end - pickles[2].end
        tree = interpret(root, storages.storage_of, select, nbytes=nbytes, faithful=pickles[3].faithful)
        if storages.end > source.size:
            raise _cut_off(source, storages.end)
        return Checkpoint(
            path=source.path,
            format=TORCH_LEGACY,
            tensors=tree.tensors,
            files=(source,),
            nbytes=source.size,
            selection=tree.selection,
            extras=tree.extras,
            other_tensors=tree.other_tensors,
            module_versions=tree.module_versions,
            globals=merge_globals(*(loaded.globals for loaded in pickles)),
            protocol=pickles[3].protocol,
            observations=tree.observations + storages.observations,
            tree=tree.frame,
        )


def _pickles(file: OpenBytes) -> list[Loaded]:
    """The five pickles, from as much of the file as they need."""
    nbytes = min(file.size, _FIRST_READ)
    data = file.read(0, nbytes)
    if data[257:262] == b"ustar":
        hint = "load it with the torch that wrote it, or any torch with weights_only=False, and save it again"
        raise UnreadableError("the file is a tar archive, as torch wrote before 0.1.10", hint=hint)
    while True:
        try:
            return _five(data)
        except UnreadableError:
            if nbytes == min(file.size, MAX_PICKLES):
                raise
        nbytes = min(file.size, MAX_PICKLES, nbytes * 16)
        data = file.read(0, nbytes)


def _five(data: bytes) -> list[Loaded]:
    found: list[Loaded] = []
    for position in range(5):
        loaded = load(data, found[-1].end if found else 0)
        if position < 2 and (type(loaded.value) is not int or loaded.value != (MAGIC, PROTOCOL)[position]):
            raise UnreadableError("the file is a pickle, but not one that torch.save wrote")
        found.append(loaded)
    return found


def _cut_off(source: ByteSource, expected: int, key: str | None = None) -> UnreadableError:
    first = f"; tensor {key} is the first that is not whole" if key is not None else ""
    what = f"the file is cut off: it holds {source.size:,} of {expected:,} bytes{first}"
    return UnreadableError(what, key=key, hint="fetch it again")


@dataclass(frozen=True, slots=True)
class _Declared:
    """What the pickle says of one storage."""

    dtype: str | None
    nbytes: int


class _Storages:
    """Where each storage lies.

    Args:
        source: the file.
        file: it, open.
        root: the object, whose persistent ids declare the storages.
        names: the fifth pickle, the names in the order of the file.

    Attributes:
        end: where the last one ends.
        observations: bytes behind it.
    """

    def __init__(self, source: ByteSource, file: OpenBytes, root: object, names: Loaded) -> None:
        self.source = source
        self.offsets: dict[str, int] = {}
        self.declared = _declarations(root)
        self.end = names.end
        if type(names.value) is not list:
            raise UnreadableError("the file is damaged: its list of storages is not a list")
        for name in names.value:
            self._place(file, name)
        self.observations: tuple[Observation, ...] = ()
        if self.end < source.size:
            self.observations = (TrailingBytes(source.size - self.end, "storages"),)

    def _place(self, file: OpenBytes, name: object) -> None:
        """The next storage in the file; its count must be what the pickle declares."""
        if type(name) is not str or name not in self.declared or name in self.offsets:
            raise UnreadableError("the file is damaged: its list of storages does not fit to its tensors")
        declared = self.declared[name]
        nbytes = declared[0].nbytes
        if self.end + 8 <= self.source.size:
            check = partial(_check_count, name, declared)
            file.check_first(self.end, 8, self.end + 8 + nbytes, check)
        self.offsets[name] = self.end + 8
        self.end += 8 + nbytes

    def storage_of(self, node: Persistent | ArrayBytes, key: str) -> StorageRef:
        """The bytes of ``("storage", class, name, location, numel, view)``; `view` is a part of the storage or None."""
        if isinstance(node, ArrayBytes):
            return array_ref(self.source, node, key)
        name, dtype, nbytes = storage_id(node.pid, key)
        if name not in self.offsets:
            raise UnreadableError(f"tensor {key}: its storage {name} is missing", key=key)
        offset = self.offsets[name]
        if offset + nbytes > self.source.size:
            raise _cut_off(self.source, self.end, key)
        part = node.pid[5] if type(node.pid) is tuple and len(node.pid) > 5 else None
        if part is not None:
            offset, nbytes = _part_of(part, offset, nbytes, _itemsize(dtype), key)
        return StorageRef(Storage(self.source, offset, nbytes), dtype)


def _check_count(name: str, declared: Sequence[_Declared], count: bytes) -> None:
    """Refuse a count of elements that is not what the pickle declares."""
    elements, nbytes = int.from_bytes(count, "little", signed=True), declared[0].nbytes
    if not any(elements * _itemsize(one.dtype) == nbytes for one in declared):
        raise UnreadableError(f"the file is damaged: storage {name} counts {elements:,} elements, not {nbytes:,} bytes")


def _itemsize(dtype: str | None) -> int:
    return DTYPES[dtype].block_nbytes if dtype else 1


def _part_of(part: object, offset: int, nbytes: int, itemsize: int, key: str) -> tuple[int, int]:
    """(offset, nbytes) of a view ``(name, first element, elements)`` of a storage."""
    if type(part) is tuple and len(part) == 3:
        _, start, count = part
        exact = type(start) is int and type(count) is int
        if exact and start >= 0 and count >= 0 and (start + count) * itemsize <= nbytes:
            return offset + start * itemsize, count * itemsize
    raise UnreadableError(f"tensor {key} is a part of its storage that lies outside of it", key=key)


def _declarations(root: object) -> dict[str, list[_Declared]]:
    """Every storage that the object refers to; two references must agree on its size."""
    found: dict[str, list[_Declared]] = {}
    for node in _persistent_ids(root):
        if not is_storage_id(node.pid):
            continue
        name, dtype, nbytes = storage_id(node.pid, "")
        declared = found.setdefault(name, [])
        if declared and declared[0].nbytes != nbytes:
            raise UnreadableError(f"the file is damaged: it gives two sizes for storage {name}")
        if all(dtype != one.dtype for one in declared):
            declared.append(_Declared(dtype, nbytes))
    return found


def _persistent_ids(root: object) -> Iterator[Persistent]:
    """Every persistent id in the object, wherever it is; each object is looked at once."""
    return (node for node in each_below([root]) if type(node) is Persistent)
