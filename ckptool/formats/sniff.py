"""What a file is, by its first bytes; its name is not asked, except for words about what cannot be read.

For a file that is not a checkpoint the error says what it is, because that helps: a Git LFS pointer, an error page that
was saved under the name of a model, an archive that was never unpacked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ckptool.core.bytes import Entry, Folder, OpenBytes
from ckptool.core.errors import UnreadableError
from ckptool.core.shell import shell_quote
from ckptool.storage.paths import is_address

HEAD = 4096  # bytes looked at
DISTRIBUTED = ".metadata"
"""The file that makes a folder a torch.distributed checkpoint."""
PART_OF_DISTRIBUTED = ".distcp"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY = (LEGACY_MAGIC.to_bytes(10, "little"), str(LEGACY_MAGIC).encode())  # pickle protocols 2 and up; 0 and 1


class Other(NamedTuple):
    """A kind of file that is not a checkpoint, in words; `hint` may use {name} and {path}."""

    what: str
    hint: str


_DOWNLOAD = "download the file again; what came is not the file that was asked for"
_PICKLE = Other("is a Python pickle, but not one that torch.save wrote", "load it in Python and torch.save its tensors")
_PICKLE_HEAD = 1 << 16  # bytes of a pickle in which numpy is named before the first array ends
_UNPACK = "unpack it and open what is inside"
_ARRAYS = "save its arrays with numpy.savez or safetensors.numpy.save_file: "
_FLAX = _ARRAYS + "flax.serialization.msgpack_restore(data) gives them"
_HDF5 = _ARRAYS + "h5py.File('{path}') gives them, or the layers' get_weights() in Keras"
_GGML = "make a GGUF of it with llama.cpp's convert_llama_ggml_to_gguf.py"
_TFLITE = "its weights are folded and often quantized for the device: take the model that it was made from"
_TENSORFLOW = _ARRAYS + "tf.train.load_checkpoint(PREFIX) gives them, where PREFIX ends before .index"
_ONNX_WEIGHTS = _ARRAYS + "onnx.numpy_helper.to_array gives one for each of onnx.load(path).graph.initializer"
_COREML = "its weights are folded and often quantized for the device: take the model that it was converted from"
_ORBAX = _ARRAYS + "orbax.checkpoint's StandardCheckpointer().restore(path) gives them"
_SAVED_MODEL = _ARRAYS + "tf.saved_model.load(path).variables are them"
_TAR = Other("is a tar archive, not a checkpoint", _UNPACK)
_OLD_TAR = Other(
    "is a checkpoint in the tar format of torch before 0.1.10, which ckptool does not read",
    "load it with torch.load and save its state_dict again",
)

_MAGIC: list[tuple[int, bytes, Other]] = [
    (0, b"\x1f\x8b", Other("is gzip-compressed", "gunzip --keep --stdout '{path}' > unpacked, and open that")),
    (0, b"BZh", Other("is bzip2-compressed", "bunzip2 --keep '{path}', and open what it makes")),
    (0, b"\xfd7zXZ\x00", Other("is xz-compressed", "unxz --keep '{path}', and open what it makes")),
    (0, b"\x28\xb5\x2f\xfd", Other("is zstd-compressed", "zstd -d '{path}', and open what it makes")),
    (0, b"7z\xbc\xaf\x27\x1c", Other("is a 7z archive", _UNPACK)),
    (0, b"Rar!\x1a\x07", Other("is a rar archive", _UNPACK)),
    (257, b"ustar", _TAR),
    (0, b"\x89HDF\r\n\x1a\n", Other("is an HDF5 file, as Keras writes", _HDF5)),
    (0, b"GGML", Other("is a GGML file, for llama.cpp", _GGML)),
    (0, b"lmgg", Other("is a GGML file, for llama.cpp", _GGML)),
    (0, b"tjgg", Other("is a GGML file, for llama.cpp", _GGML)),
    (4, b"TFL3", Other("is a TensorFlow Lite model", _TFLITE)),
    (0, b"%PDF-", Other("is a PDF document", _DOWNLOAD)),
    (0, b"\x89PNG\r\n", Other("is a PNG image", _DOWNLOAD)),
    (0, b"\xff\xd8\xff", Other("is a JPEG image", _DOWNLOAD)),
    (0, b"\x7fELF", Other("is a program or library", _DOWNLOAD)),
]

_POINTER = "its server has the pointer alone: get the file itself from where it was uploaded"
_PAGE = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html|head|\?xml|error|!--)", re.IGNORECASE)
_LFS = re.compile(rb"version https://git-lfs\.github\.com/spec/")
_ONNX = re.compile(rb"\x08[\x01-\x20](?:\x12[\x01-\x7f][\x20-\x7e]+[\x1a:]|:)", re.DOTALL)
_COREML_SPEC = re.compile(rb"\x08[\x01-\x20]\x12[\x80-\xff]{0,2}[\x01-\x7f]\x0a", re.DOTALL)
_TF_DATA = re.compile(r"\.data-\d{5}-of-\d{5}$")
_MSGPACK = re.compile(rb"(?:[\x81-\x8f]|\xde..|\xdf....)(?:[\xa1-\xbf]|\xd9.)[\x20-\x7e]{2}", re.DOTALL)
_TF_CHECKPOINT = re.compile(rb"\s*model_checkpoint_path\s*:")
_OLD_PICKLE = re.compile(rb"[(\]}][lpdqtX(\]}c]|c[\w.]+\n[\w.]+\n")
_PT2 = re.compile(
    rb"[^/]*/(?:data/(?:weights|constants|aotinductor|executorch)/|models/|archive_format$)"
    rb"|serialized_(?:exported_program|state_dict|constants)\."
)
_LEVELDB_FOOTER = bytes.fromhex("57fb808b247547db")


def begins(magic: bytes) -> Callable[[bytes, OpenBytes], bool]:
    """What knows a kind of file by its first bytes alone.

    Example:
        >>> begins(b"GGUF")(b"GGUF\\3\\0\\0\\0", None)
        True
    """
    return lambda head, file: head.startswith(magic)


def is_zip(head: bytes, file: OpenBytes) -> bool:
    """True for a zip archive."""
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def is_torch_zip(head: bytes, file: OpenBytes) -> bool:
    """True for a zip archive that does not begin as numpy's do; whether torch wrote it, its directory says."""
    return is_zip(head, file) and not is_npz(head, file)


def is_pt2(head: bytes, file: OpenBytes) -> bool:
    """True for a zip archive that begins as those of torch.export do."""
    return head.startswith(b"PK\x03\x04") and _PT2.match(_first_member(head)) is not None


def is_legacy(head: bytes, file: OpenBytes) -> bool:
    """True for a file of torch before 1.6."""
    return any(magic in head[:40] for magic in _LEGACY) and head[:1] in b"\x80LI"


def is_safetensors(head: bytes, file: OpenBytes) -> bool:
    """True for 8 bytes of length and a JSON object; the reference lets white space stand before the brace."""
    if is_zip(head, file) or is_legacy(head, file) or _is_text(head[:8]):
        return False
    return head[8:].lstrip(b" \t\r\n").startswith(b"{")


def is_npz(head: bytes, file: OpenBytes) -> bool:
    """True for a zip archive whose first member is an array of numpy."""
    return head.startswith(b"PK\x03\x04") and _first_member(head).endswith(b".npy")


def _first_member(head: bytes) -> bytes:
    """The name of a zip archive's first member."""
    return head[30 : 30 + int.from_bytes(head[26:28], "little")]


def is_numpy_pickle(head: bytes, file: OpenBytes) -> bool:
    """True for a pickle that names numpy's arrays, and is no torch file."""
    is_pickle = head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    if is_legacy(head, file) or not (is_pickle or _OLD_PICKLE.match(head)):
        return False
    start = file.read(0, min(file.size, _PICKLE_HEAD))
    return b"numpy" in start and any(name in start for name in (b"_reconstruct", b"_frombuffer"))


def is_index(head: bytes, file: OpenBytes) -> bool:
    """True for JSON that says which shard holds which key."""
    if not _is_json(head):
        return False
    return b'"weight_map"' in (head if file.size <= HEAD else file.read(0, min(file.size, 1 << 16)))


def _is_json(head: bytes) -> bool:
    return head.lstrip(b" \t\r\n").startswith(b"{") and _is_text(head)


def what_else(head: bytes, file: OpenBytes) -> UnreadableError:
    """What a file is that is not a checkpoint, in words."""
    other = _other_kind(head, file)
    name, path = file.path.name, str(file.path)
    hint = other.hint.replace("{name}", shell_quote(name)).replace("{path}", path)
    return UnreadableError(f"{path} {other.what}", hint=hint or None, path=file.path)


def _other_kind(head: bytes, file: OpenBytes) -> Other:
    if not head:
        return Other("is empty", _DOWNLOAD)
    for offset, magic, other in _MAGIC:
        if head.startswith(magic, offset):
            old = head[:100].rstrip(b"\0") in (b"sys_info", b"pickle", b"storages", b"tensors")
            return _OLD_TAR if other is _TAR and old else other
    if _LFS.match(head):
        hint = _POINTER if is_address(file.path) else "git lfs pull --include {name}"
        return Other(f"is a Git LFS pointer, not the weights ({file.size:,} bytes)", hint)
    if _PAGE.match(head):
        return Other("is a web page or XML, not a checkpoint: the download answered with a message", _DOWNLOAD)
    if _is_text(head):
        return _text_kind(head, file)
    return _binary_kind(head, file)


def _text_kind(head: bytes, file: OpenBytes) -> Other:
    if head.lstrip()[:1] in (b"{", b"["):
        return Other("is JSON, not a checkpoint", "give the file or folder that holds the weights")
    if _TF_CHECKPOINT.match(head):
        return Other("is a text that names the latest TensorFlow checkpoint", _TENSORFLOW)
    if _OLD_PICKLE.match(head) and file.read(file.size - 1, 1) == b".":
        return _PICKLE
    return Other("is text, not a checkpoint", "give the file or folder that holds the weights")


def _binary_kind(head: bytes, file: OpenBytes) -> Other:
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return _PICKLE
    if file.size >= 8 and file.read(file.size - 8, 8) == _LEVELDB_FOOTER:
        return Other("is the index of a TensorFlow checkpoint", _TENSORFLOW)
    if _ONNX.match(head):
        return Other("looks like an ONNX model", _ONNX_WEIGHTS)
    if _COREML_SPEC.match(head):
        return Other("looks like a Core ML model", _COREML)
    if _MSGPACK.match(head):
        return Other("looks like msgpack, as flax writes", _FLAX)
    if not head.strip(b"\0"):
        return Other("begins with zeros: its download or copy was not finished", "download it again")
    if _OLD_PICKLE.match(head) and file.read(file.size - 1, 1) == b".":
        return _PICKLE
    if _TF_DATA.search(file.path.name):  # numbers alone: nothing but the name tells
        return Other("holds the numbers of a TensorFlow checkpoint", _TENSORFLOW)
    return Other(
        f"is not a checkpoint that ckptool knows (it begins with {head[:8].hex(' ')})",
        "ckptool reads torch files, safetensors, sharded folders and torch.distributed checkpoints",
    )


def is_distributed(folder: Folder, entries: Sequence[Entry]) -> bool:
    """True for a folder that torch.distributed.checkpoint wrote, also where a part of it is missing."""
    return any(entry.name == DISTRIBUTED or entry.name.endswith(PART_OF_DISTRIBUTED) for entry in entries)


def other_folder(names: Sequence[str]) -> Other | None:
    """What a folder is that holds no checkpoint, by the names in it."""
    found = set(names)
    if "saved_model.pb" in found:
        return Other("is a TensorFlow SavedModel", _SAVED_MODEL)
    if found & _ORBAX_FILES:
        return Other("is an Orbax checkpoint of JAX", _ORBAX)
    if any(map(_TF_DATA.search, names)):
        return Other("is a TensorFlow checkpoint", _TENSORFLOW)
    if {"Manifest.json", "Data"} <= found:
        return Other("is a Core ML package", _COREML)
    return None


_ORBAX_FILES = {"_CHECKPOINT_METADATA", "manifest.ocdbt", "_METADATA"}


def _is_text(data: bytes) -> bool:
    """Printable UTF-8; a character may be cut at the end of what was read."""
    if any(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in data):
        return False
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return len(data) == HEAD and error.reason == "unexpected end of data"
    return True
