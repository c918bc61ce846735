"""Plain tensors are read in one step: exactly as the opcodes one by one would read them."""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptool.core.errors import UnreadableError
from ckptool.formats.pickle import machine
from ckptool.formats.pickle.dump import dump
from ckptool.formats.pickle.loading import Loaded, load
from ckptool.formats.pickle.objects import Call, Dict, Global, Inert, Persistent, Set
from ckptool.formats.pickle.tensors import plain_storage


@contextmanager
def opcodes_alone() -> Iterator[None]:
    """Without the step that reads whole tensors."""
    patch = pytest.MonkeyPatch()
    with patch.context() as patched:
        patched.setattr(machine, "plain_tensor", lambda *_: None)
        yield


def shown(root: object) -> list[object]:
    """Everything that can be told of some objects: kinds, atoms, order, and which of them are one."""
    numbers: dict[int, int] = {}
    rows: list[object] = []
    stack = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, (Inert, list, tuple)):
            if id(node) in numbers:
                rows.append(("again", numbers[id(node)]))
                continue
            numbers[id(node)] = len(numbers)
        rows.append((type(node).__name__, parts(node)[0]))
        stack.extend(reversed(parts(node)[1]))
    return rows


def parts(node: object) -> tuple[object, list[object]]:
    match node:
        case list() | tuple():
            return len(node), list(node)
        case Dict():
            return len(node.items), [part for pair in node.items for part in pair]
        case Set():
            return node.frozen, node.values
        case Global():
            return node.qualified, []
        case Persistent():
            return None, [node.pid]
        case Call():
            items = [part for pair in node.items for part in pair]
            sizes = node.how, len(node.appended), len(node.items), len(node.states)
            return sizes, [node.fn, node.args, node.kwargs, *node.appended, *items, *node.states]
    return repr(node), []


def both(data: bytes) -> tuple[Loaded | str, Loaded | str]:
    """A pickle read with and without the step, or what was said of it."""

    def read() -> Loaded | str:
        try:
            return load(data)
        except UnreadableError as error:
            return error.message

    with opcodes_alone():
        slow = read()
    return read(), slow


def require_the_same(data: bytes) -> Loaded | str:
    quick, slow = both(data)
    if isinstance(quick, str) or isinstance(slow, str):
        assert quick == slow
        return quick
    assert shown(quick.value) == shown(slow.value)
    assert (quick.end, quick.protocol, quick.globals, quick.faithful) == (
        slow.end, slow.protocol, slow.globals, slow.faithful)  # fmt: skip
    return quick


def pickle_of(state: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def tensors(count: int) -> dict[str, torch.Tensor]:
    kinds = [
        lambda: torch.zeros(3),
        lambda: torch.zeros(2, 300),
        lambda: torch.zeros(1, 2, 70_000)[:, :, 5:9],
        lambda: torch.zeros(1, 1, 2, 3, 4, dtype=torch.float16),
        lambda: torch.tensor(7),
        lambda: torch.zeros(4, 4).t(),
        lambda: torch.zeros(0, 2),
        lambda: torch.nn.Parameter(torch.zeros(2)),
        lambda: torch.zeros(2, requires_grad=True),
        lambda: torch.zeros(3, dtype=torch.bfloat16),
        lambda: torch.zeros(2, dtype=torch.uint16),
    ]
    state = {f"layer.{number}.weight": kinds[number % len(kinds)]() for number in range(count)}
    state["tied"] = state["layer.60.weight"]
    state["view"] = state["layer.56.weight"][1:]
    return state


STATE = pickle_of(tensors(90))


def is_plain(data: bytes) -> int:
    """How many tensors were read in one step."""
    loaded = load(data)
    assert isinstance(loaded.value, Dict)
    return sum(type(value) is Call and plain_storage(value) is not None for _, value in loaded.value.items)


def test_most_tensors_of_a_state_dict_are_read_in_one_step() -> None:
    assert is_plain(STATE) > 30
    loaded = require_the_same(STATE)
    assert isinstance(loaded, Loaded)
    assert dump(loaded.value) == STATE


def test_names_of_one_character_and_of_tied_storages() -> None:
    shared = torch.zeros(9)
    state = {"x": [str(number) * 3 for number in range(300)], **{f"w{n}": shared[n : n + 1] for n in range(9)}}
    assert require_the_same(pickle_of(state))


@settings(max_examples=60)
@given(st.data())
def test_a_damaged_state_dict_is_read_as_its_opcodes_say(data: st.DataObject) -> None:
    out = bytearray(STATE)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(4000, len(out) - 1))
        match data.draw(st.integers(0, 3)):
            case 0:
                out[at] = data.draw(st.integers(0, 255))
            case 1:
                out[at] ^= 1 << data.draw(st.integers(0, 7))
            case 2:
                del out[at : at + data.draw(st.integers(1, 6))]
            case _:
                out[at:at] = data.draw(st.binary(min_size=1, max_size=6))
    require_the_same(bytes(out))


@pytest.mark.parametrize("byte", b"(tKMJhjrXQR)N\x85\x86\x00")
def test_every_byte_of_a_run(byte: int) -> None:
    """One whole tensor, each of its bytes in turn replaced by one value."""
    starts = [at for op, _, at in pickletools.genops(STATE) if op.name == "MARK"]
    start = next(at for at in starts if at > 6000 and STATE[at : at + 2] == b"((")
    for at in range(start, start + 90):
        require_the_same(STATE[:at] + bytes([byte]) + STATE[at + 1 :])


def test_what_is_put_into_a_plain_tensor_later_is_seen() -> None:
    """The memo leads back into a tensor that was read in one step: its hooks get an entry, itself a state."""
    memo = next(at for op, at, pos in reversed([*pickletools.genops(STATE)]) if op.name == "LONG_BINPUT")
    assert isinstance(memo, int)
    count = is_plain(STATE)
    for index in range(memo - 12, memo + 1):
        for filled in (b"K\x01K\x02s", b"K\x01a", b"}b"):
            changed = STATE[:-2] + b"X\x01\0\0\0zj" + struct.pack("<I", index) + filled + b"u."
            loaded = require_the_same(changed)
            if isinstance(loaded, Loaded):
                assert is_plain(changed) <= count
                calls = [value for _, value in loaded.value.items if type(value) is Call]  # type: ignore[attr-defined]
                touched = [call for call in calls if call.items or call.appended or call.states]
                assert all(plain_storage(call) is None for call in touched)


def test_a_class_in_the_place_of_a_storage_class_is_named() -> None:
    changed = STATE.replace(b"ctorch\nHalfStorage\n", b"cposix\nsystem\n")
    loaded: Any = require_the_same(changed)
    assert "posix.system" in {use.name for use in loaded.globals}
