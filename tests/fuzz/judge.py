"""What must hold for one input: ckptool works or raises a `CkptError`, and reads what torch and safetensors read."""

from __future__ import annotations

import io
import json
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from ckptool.commands.checks.policy import read_policy
from ckptool.commands.filter import plan_filter
from ckptool.core.checkpoint import Checkpoint
from ckptool.core.errors import CkptError
from ckptool.core.keys import Pattern
from ckptool.core.spec import TensorSpec
from ckptool.engine.dequantize import dequantized
from ckptool.engine.reading import Reader
from ckptool.facts.words import notes_of
from ckptool.formats.opening import open_checkpoint
from ckptool.formats.pickle.dump import dump
from ckptool.formats.pickle.loading import load
from ckptool.recipes.expand import expand
from ckptool.recipes.recipe import load_recipe, parse_recipe

SECONDS = 10.0
_READ, _READ_BYTES = 20, 1 << 20  # tensors that are read without an oracle, and the most bytes of one
_SPECS = [
    TensorSpec(key, "float32", (4, 4)) for key in ("a", "b.a", "layer.0.weight", "layer.9.b", "a.1.weight", "é.b")
]
_RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pty.spawn", "exec", "marshal.loads")


class FindingError(Exception):
    """What did not hold."""


class _Canary:
    """Sees what Python runs while ckptool has the input; an audit hook can never be taken out again."""

    def __init__(self) -> None:
        self.watches = False
        self.seen = ""
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.watches and event in _RUNS and not _is_ours(event, arguments):
            self.seen = f"{event} {arguments!r:.200}"


def _is_ours(event: str, arguments: tuple[object, ...]) -> bool:
    """The process for regexes, and code objects of modules that ckptool imports when it first needs them."""
    if event == "subprocess.Popen":
        return "fullmatch" in repr(arguments)
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if "importlib._bootstrap" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return "fork" in event


CANARY = _Canary()


@contextmanager
def _limited() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise FindingError(f"takes more than {SECONDS:g} seconds, in {frame.f_code if frame else 'C'}")

    # of the processor's time, for other programs may have most of it; and of the clock's, for what only waits
    timers = ((signal.SIGPROF, signal.ITIMER_PROF, SECONDS), (signal.SIGALRM, signal.ITIMER_REAL, 12 * SECONDS))
    before = [signal.signal(number, stop) for number, _, _ in timers]
    for _, timer, seconds in timers:
        signal.setitimer(timer, seconds)
    CANARY.watches, CANARY.seen = True, ""
    try:
        yield
    finally:
        CANARY.watches = False
        for (number, timer, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)
    if CANARY.seen:
        raise FindingError(f"something ran: {CANARY.seen}")


def judge(path: Path) -> bool:
    """Try one input.

    Args:
        path: of its first file; its suffix says what it is.

    Returns:
        True if ckptool took it.

    Raises:
        FindingError: something does not hold.
    """
    try:
        with _limited():
            result = _ACTIONS.get(path.suffix if path.is_file() else "folder", _open)(path)
            _read(result)
    except CkptError as error:
        _require_words(error)
        return False
    except FindingError:
        raise
    except Exception as error:
        raise FindingError(f"{type(error).__name__}: {error}"[:300]) from error
    if isinstance(result, Checkpoint):
        _agree(result, path)
    return True


def _read(result: object) -> None:
    """Read some tensors, as they are stored and decoded, whether or not a library can say what is in them."""
    if not isinstance(result, Checkpoint):
        return
    _read_some(result)
    with suppress(CkptError):
        _read_some(dequantized(result))


def _read_some(checkpoint: Checkpoint) -> None:
    with suppress(CkptError), Reader() as reader:
        for tensor in islice(checkpoint.values(), _READ):
            if tensor.nbytes <= _READ_BYTES and len(reader.read_bytes(tensor)) != tensor.nbytes:
                raise FindingError(f"{tensor.key!r} has not the bytes that it declares")


def _require_words(error: CkptError) -> None:
    if not error.message or len(error.message) > 100_000 or "Error" in error.message[:20]:
        raise FindingError(f"the message says nothing: {error.message[:100]!r}")


# ---------------------------------------------------------------------------------------------- actions


def _open(path: Path) -> Checkpoint:
    checkpoint = open_checkpoint(path)
    list(notes_of(checkpoint))
    with suppress(CkptError):
        plan_filter(checkpoint, [("drop", "w")] if "w" in checkpoint else [])
    return checkpoint


def _folder(path: Path) -> Checkpoint:
    checkpoint = _open(path)
    dequantized(checkpoint)
    return checkpoint


def _pickle(path: Path) -> None:
    loaded = load(path.read_bytes())
    if loaded.faithful:
        dumped = dump(loaded.value, max(2, loaded.protocol))
        if dump(load(dumped).value, max(2, loaded.protocol)) != dumped:
            raise FindingError("what was dumped is read as something else")


def _recipe(path: Path) -> None:
    recipe = load_recipe(path) if path.suffix == ".toml" else parse_recipe(path.read_text("utf-8").splitlines())
    expand(recipe, {spec.key: spec for spec in _SPECS}, vars={"a": 2.0, "b": 0.5})


def _pattern(path: Path) -> None:
    text, keys = json.loads(path.read_bytes())
    selected = Pattern.parse(text).select(keys)
    if selected != [key for key in keys if Pattern.parse(text).matches(key)]:
        raise FindingError("matches and select differ")


def _toml(path: Path) -> None:
    if path.name == "ckptool.toml":
        read_policy(path).settings_for(path.parent / "weights" / "a.pth")
    else:
        _recipe(path)


def _json(path: Path) -> object:
    return _open(path) if path.name.endswith(".index.json") else _pattern(path)


# any other file is opened as a checkpoint
_ACTIONS: Mapping[str, Callable[[Path], object]] = {
    ".json": _json,
    ".pkl": _pickle,
    ".txt": _recipe,
    ".toml": _toml,
    "folder": _folder,
}


# ---------------------------------------------------------------------------------------------- oracles


def _agree(checkpoint: Checkpoint, path: Path) -> None:
    """Keys, shapes, dtypes and bytes are those that the format's own library loads, if it loads the file."""
    expected = _loaded(path)
    if expected is None:
        return
    if list(checkpoint) != list(expected) and set(checkpoint) != set(expected):
        raise FindingError(f"keys {list(checkpoint)} where the library has {list(expected)}")
    with Reader() as reader:
        for key, tensor in expected.items():
            found = checkpoint[key]
            if found.shape != tuple(tensor.shape) or f"torch.{found.dtype}" != str(tensor.dtype):
                raise FindingError(f"{key!r} is {found.spec.short} where the library has {tensor.dtype} {tensor.shape}")
            raw = bytes(tensor.contiguous().view(-1).view(torch.uint8).tolist()) if tensor.numel() else b""
            try:
                own = reader.read_bytes(found)
            except CkptError:  # torch loads values whose checksum does not hold; we refuse them
                continue
            if own != raw:
                raise FindingError(f"{key!r} has other bytes than the library loads")


def _loaded(path: Path) -> dict[str, torch.Tensor] | None:
    """The state dict that torch or safetensors loads; None if it loads none, or not a flat one."""
    data: Any
    try:
        with warnings.catch_warnings(action="ignore"):
            if path.suffix == ".safetensors":
                return load_safetensors(path.read_bytes())
            if path.suffix != ".pth":
                return None
            data = torch.load(io.BytesIO(path.read_bytes()), weights_only=True, map_location="cpu")
    except (SafetensorError, Exception):  # whatever it says of a damaged file
        return None
    if not isinstance(data, dict) or not data or not all(isinstance(key, str) for key in data):
        return None
    return data if all(isinstance(value, torch.Tensor) for value in data.values()) else None
