"""torch's zip files (torch 1.6 and newer): a ``data.pkl`` and one stored record for each storage; TorchScript too.

Read are the end of the file, the directory, the local headers, and the small members. Tensor data is not touched.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath

from ckptool.core.bytes import ByteSource, OpenBytes
from ckptool.core.checkpoint import Checkpoint, GlobalUse
from ckptool.core.errors import UnreadableError, naming
from ckptool.core.format import Format
from ckptool.core.initial import INITIAL_KEY
from ckptool.core.observations import ChecksumDiffers, ChecksumNotCompared, Observation, TrailingBytes
from ckptool.core.tensor import Storage
from ckptool.formats.pickle.loading import Loaded, load, load_from
from ckptool.formats.pickle.objects import Persistent
from ckptool.formats.registry import endings
from ckptool.formats.torch.arrays import array_ref
from ckptool.formats.torch.storage import ArrayBytes, StorageRef, storage_id
from ckptool.formats.torch.tree import interpret
from ckptool.formats.torch.walk import ScriptClass
from ckptool.formats.zip_directory import Member, inflate, read_directory

TORCH_ZIP = Format("torch zip", is_pickle=True, has_versions=True, has_checksums=True)
TORCHSCRIPT = Format("TorchScript", is_pickle=True, is_program=True, has_checksums=True)
_MAX_CODE = 64 << 20
_MAX_RECORD = 64 << 20
_MAX_SUMMED = 1 << 30  # bytes of a pickle with arrays whose CRC-32 is compared on opening: about a second
_BLOCK = 1 << 20
_LARGE_PICKLE = 8 << 20
_PICKLE_HEAD = 1 << 16


@dataclass(frozen=True, slots=True)
class Archive:
    """A torch zip, or one embedded in a larger file, with its pickle read.

    Attributes:
        file: the file it stands in.
        members: what it holds, by name without the root folder; offsets count from the start of the file.
        root: name of the root folder.
        loaded: the object in ``data.pkl``, inert, and the globals that it names.
        pickle_nbytes: size of ``data.pkl``.
        big_endian: True if the ``byteorder`` record says so.
        observations: what is odd about ``data.pkl``.
    """

    file: ByteSource
    members: Mapping[str, Member]
    root: str
    loaded: Loaded
    pickle_nbytes: int
    big_endian: bool = False
    observations: tuple[Observation, ...] = ()

    def storage_of(self, node: Persistent | ArrayBytes, key: str) -> StorageRef:
        """The record of ``("storage", class, name, location, numel)``; see `ckptool.formats.torch.storage.StorageOf`.

        Raises:
            UnreadableError: the record is missing, compressed, or not of the size that the pickle declares.
        """
        if isinstance(node, ArrayBytes):
            return array_ref(self.file, node, key)
        name, dtype, nbytes = storage_id(node.pid, key, parts=5)
        member = self.members.get(f"data/{name}")
        if member is None:
            raise _bad(self.file.path, f"tensor {key}: its record {self.root}/data/{name} is missing", key)
        if member.method:
            raise _bad(self.file.path, f"tensor {key}: its record {member.name} is compressed", key, _RESAVE)
        if member.nbytes != nbytes:
            sizes = f"holds {member.nbytes:,} bytes, not {nbytes:,}"
            raise _bad(self.file.path, f"tensor {key}: its record {member.name} {sizes}", key)
        return StorageRef(Storage(self.file, member.offset, nbytes, self.big_endian, member.crc or None), dtype)


_RESAVE = "torch stores its records uncompressed: unpack the archive and zip it again with `zip -0`"


def _bad(path: PurePath, what: str, key: str | None = None, hint: str | None = None) -> UnreadableError:
    return UnreadableError(what, path=path, key=key, hint=hint)


def open_zip(source: ByteSource, select: str | None = None) -> Checkpoint:
    """Open a torch zip or a TorchScript archive.

    Args:
        source: the file.
        select: dotted path of the dict to take as the weights; None to choose.

    Raises:
        UnreadableError: it is another kind of zip archive, is damaged, or can be understood in two ways.
        UsageError: nothing is under `select`.
    """
    with source.open() as file, naming(source.path):
        archive = _archive(source, file, 0, source.size)
        script = "constants.pkl" in archive.members or any(name.startswith("code/") for name in archive.members)
        classes = _script_classes(file, archive.members) if script else None
        tree = interpret(
            archive.loaded.value,
            archive.storage_of,
            select,
            nbytes=archive.pickle_nbytes,
            classes=classes,
            faithful=archive.loaded.faithful,
        )
        return Checkpoint(
            path=source.path,
            format=TORCHSCRIPT if script else TORCH_ZIP,
            tensors=tree.tensors,
            files=(source,),
            nbytes=source.size,
            selection=tree.selection,
            extras=tree.extras,
            other_tensors=tree.other_tensors,
            module_versions=tree.module_versions,
            globals=tuple(map(_declared, archive.loaded.globals)) if script else archive.loaded.globals,
            protocol=archive.loaded.protocol,
            observations=(*tree.observations, *archive.observations),
            tree=tree.frame,
            metadata=_metadata(file, archive.members),
        )


def _metadata(file: OpenBytes, members: Mapping[str, Member]) -> dict[str, str]:
    """What ckptool recorded in an archive that it wrote; torch does not read it."""
    member = members.get(INITIAL_KEY)
    if member is None or member.method or member.nbytes > _MAX_RECORD:
        return {}
    return {INITIAL_KEY: inflate(file, member).decode("ascii", "replace")}


def read_embedded(source: ByteSource, offset: int, nbytes: int) -> Archive:
    """Read a torch zip that stands inside another file, as torch.distributed writes them.

    The object is ``.loaded.value``. If it is a tensor, ``torch_tree.tensor_of(value, archive.storage_of, key)`` gives
    it, with pieces whose storages carry offsets in the whole file.

    Args:
        source: the file around it.
        offset: first byte of the archive in that file.
        nbytes: length of the archive.
    """
    with source.open() as file, naming(source.path):
        return _archive(source, file, offset, nbytes)


def _archive(source: ByteSource, file: OpenBytes, offset: int, nbytes: int) -> Archive:
    directory = read_directory(file, offset, nbytes)
    root = _root(file.path, directory)
    members = directory.within(root)
    del directory
    loaded, odd = _pickle(source, file, members["data.pkl"])
    order = inflate(file, members["byteorder"], 64).strip() if "byteorder" in members else b"little"
    if order not in (b"little", b"big"):
        raise _bad(file.path, f"{file.path} declares a byte order that is neither little nor big")
    return Archive(source, members, root, loaded, loaded.nbytes, order == b"big", odd)


def _pickle(source: ByteSource, file: OpenBytes, member: Member) -> tuple[Loaded, tuple[Observation, ...]]:
    """The object in ``data.pkl``; a large one that begins with numpy arrays is read without them."""
    if member.nbytes > _LARGE_PICKLE and not member.method and b"numpy" in file.read(member.offset, _PICKLE_HEAD):
        end = member.offset + member.nbytes
        loaded = load_from(source, member.offset, end)
        observed: list[Observation] = [TrailingBytes(end - loaded.end, "pickle")] if loaded.end < end else []
        if member.crc and member.nbytes > _MAX_SUMMED:
            observed.append(ChecksumNotCompared(member.name, member.nbytes))
        elif member.crc and member.crc != _sum_of(file, member):
            observed.append(ChecksumDiffers(member.name))
        return loaded, tuple(observed)
    pickle = inflate(file, member)
    loaded = load(pickle, path=file.path)
    return loaded, tuple(_observed(member, pickle, loaded))


def _sum_of(file: OpenBytes, member: Member) -> int:
    """The CRC-32 of a record, read in blocks."""
    found, end = 0, member.offset + member.nbytes
    for at in range(member.offset, end, _BLOCK):
        found = zlib.crc32(file.read(at, min(_BLOCK, end - at)), found)
    return found


def _observed(member: Member, pickle: bytes, loaded: Loaded) -> Iterator[Observation]:
    """torch reads the first pickle in ``data.pkl`` and leaves the rest alone, and it does not look at the CRC-32."""
    if loaded.end < len(pickle):
        yield TrailingBytes(len(pickle) - loaded.end, "pickle")
    if member.crc and member.crc != zlib.crc32(pickle):
        yield ChecksumDiffers(member.name)


def _declared(use: GlobalUse) -> GlobalUse:
    """A class of the archive's own program is not a class that loading it would import."""
    return replace(use, risk="harmless") if use.name.startswith("__torch__.") else use


def _root(path: PurePath, directory: Iterable[str]) -> str:
    """The one folder that everything is in; torch takes it from the first member."""
    names = [name for name in directory if not name.startswith("__MACOSX/")]
    found = [name for name in names if re.fullmatch(r"[^/]*/data\.pkl", name, re.IGNORECASE)]
    if not found:
        raise _bad(path, f"{path} is {_kind(names)}", hint=_kind_hint(names))
    roots = {name.partition("/")[0] for name in names}
    root = found[0].partition("/")[0]
    if len(found) > 1 or len(roots) > 1:
        listed = ", ".join(sorted(roots)[:4])
        raise _bad(path, f"{path} holds more than one root folder ({listed}): readers would disagree", hint="unzip it")
    if found[0] != f"{root}/data.pkl":
        raise _bad(path, f"{path} names its pickle {found[0]}: readers would disagree whether that is data.pkl")
    return root


def _kind(names: list[str]) -> str:
    """What a zip archive without a ``data.pkl`` in a folder is."""
    if not names:
        return "an empty zip archive"
    if "data.pkl" in names:
        return "a torch archive that was zipped without its root folder; torch does not read that either"
    if "[Content_Types].xml" in names:
        return "an office document, not a checkpoint"
    if _is_keras(names):
        return "a Keras model, not a torch checkpoint"
    if any(name.endswith(endings()) for name in names):
        return "a zip archive with checkpoints in it"
    if any(re.fullmatch(r"[^/]+/model\.json", name) for name in names):
        return "a TorchScript archive of torch before 1.3, which has no data.pkl"
    return "a zip archive without a data.pkl, so not a torch checkpoint"


def _is_keras(names: list[str]) -> bool:
    return "model.weights.h5" in names or ("config.json" in names and "metadata.json" in names)


def _kind_hint(names: list[str]) -> str | None:
    if "data.pkl" in names:
        return "put the files into one folder and zip that with `zip -0 -r`"
    if _is_keras(names):
        return "unzip it and save the arrays of model.weights.h5, which h5py reads, with numpy.savez"
    if any(name.endswith(endings()) for name in names):
        return "unzip it and open the files inside"
    return None


_CLASS = re.compile(r"^class (\w+)\(Module\):\n((?:  __\w+__ = \[.*\]\n)*)", re.MULTILINE)
_DECLARED = re.compile(r"__(parameters|buffers)__ = \[(.*)\]")
_QUOTED = re.compile(r'"([^"]*)"')


def _script_classes(file: OpenBytes, members: Mapping[str, Member]) -> dict[str, ScriptClass]:
    """Which attributes of TorchScript's module classes are parameters and buffers, from their declarations.

    Only these lines of the code are looked at.
    """
    classes: dict[str, ScriptClass] = {}
    left = _MAX_CODE
    for name, member in members.items():
        if not name.startswith("code/") or not name.endswith(".py"):
            continue
        code = inflate(file, member, left)
        left -= len(code)
        module = name[len("code/") : -len(".py")].replace("/", ".")
        for found in _CLASS.finditer(code.decode("utf-8", "replace")):
            lists = {kind: frozenset(_QUOTED.findall(rest)) for kind, rest in _DECLARED.findall(found[2])}
            nothing: frozenset[str] = frozenset()
            declared = ScriptClass(lists.get("parameters", nothing), lists.get("buffers", nothing))
            classes[f"{module}.{found[1]}"] = declared
    return classes
