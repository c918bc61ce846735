"""Where the bytes of numpy arrays lie: in the file, in text, or in the pickle that was read."""

from __future__ import annotations

from ckptool.core.bytes import ByteSource
from ckptool.core.errors import UnreadableError
from ckptool.core.tensor import Storage
from ckptool.formats.characters import Characters
from ckptool.formats.pickle.objects import Payload
from ckptool.formats.ranks.held import HeldBytes
from ckptool.formats.torch.storage import ArrayBytes, StorageRef


def array_ref(source: ByteSource, array: ArrayBytes, key: str) -> StorageRef:
    """Where the bytes of a numpy array lie.

    Args:
        source: the file that holds the pickle.
        array: what the pickle says of them.
        key: of the tensor, for messages.

    Raises:
        UnreadableError: there are more or fewer.
    """
    content, nbytes = array
    if isinstance(content, Payload) and content.is_text:
        held = content.nbytes if not nbytes <= content.nbytes <= 2 * nbytes else nbytes
        if held == nbytes:
            text = Characters(content.file, content.offset, content.nbytes, nbytes)
            return StorageRef(Storage(text, 0, nbytes), None)
    elif isinstance(content, Payload):
        held = content.nbytes
        if held == nbytes:
            return StorageRef(Storage(content.file, content.offset, nbytes), None)
    else:
        if isinstance(content, str):  # characters are bytes; a string of Python 2 was read as UTF-8
            encoding = "latin-1" if len(content) == nbytes else "utf-8"
            content = content.encode(encoding, "replace")
        held = len(content)
        if held == nbytes:
            return StorageRef(Storage(HeldBytes(source, content), 0, nbytes), None)
    raise UnreadableError(
        f"tensor {key or '(the whole file)'} is an array of {nbytes:,} bytes, and the pickle holds {held:,} for it",
        hint="the file is damaged or was made by hand; get it again from where it came from",
        key=key,
    )
