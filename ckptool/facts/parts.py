"""A part of a model: one rank of several, one shard of several, one file of a checkpoint that every rank wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.counts import listed, many
from ckptool.core.errors import CkptError
from ckptool.core.facts import FINE, TAKES_VALUES, Answer, Fact, Operation, Refuse, Say, Use
from ckptool.facts.headers import Headers
from ckptool.facts.registry import finder
from ckptool.formats.folder import KNOWN
from ckptool.formats.ranks.deepspeed_files import EXPERT_FILE, LAYER_FILE, is_deepspeed
from ckptool.formats.ranks.kinds import joining_folder
from ckptool.formats.ranks.parts import is_part
from ckptool.formats.registry import INDEX_ENDING
from ckptool.formats.sharded import SHARD_NAME
from ckptool.storage.locate import locate_folder
from ckptool.storage.paths import is_file

_RANK = re.compile(r"(?<![A-Za-z])(?:rank|part|consolidated|tp)[._-]?(?P<number>\d{1,5})(?!\d)")
_MOST_NAMES = 10_000  # of a folder's names that are looked at


@dataclass(frozen=True, slots=True)
class Shard(Fact):
    """One shard of several; `of` is their number, `folder` what holds them."""

    of: int = 0
    folder: str = ""

    name = "shard"
    grade = "warning"

    @property
    def text(self) -> str:
        return f"this is one of {self.of} shards"

    @property
    def hint(self) -> str:
        return f"all of them: {self.folder}"

    def answer(self, use: Use) -> Answer:
        if use.operation in TAKES_VALUES:
            return Say(self.text, self.hint)
        return FINE


@dataclass(frozen=True, slots=True)
class Rank(Fact):
    """One rank's part of a model.

    Attributes:
        file: the name of the file or folder with the rank's number.
        siblings: those of other ranks.
        folder: what ckptool opens as the whole, if it can join such ranks.
    """

    file: str = ""
    siblings: tuple[str, ...] = ()
    folder: str = ""

    name = "rank"
    may_be_allowed = True
    tells = True
    level = "warning"
    grade = "error"

    @property
    def text(self) -> str:
        return (
            f"this is one rank's part of a model of {len(self.siblings) + 1} ranks: "
            f"{self.file}, and next to it {', '.join(self.siblings[:3])}{', ...' if len(self.siblings) > 3 else ''}"
        )

    @property
    def hint(self) -> str:
        if self.folder:
            return f"open the folder, which joins them: {self.folder}"
        return "join the ranks first, with the script of the library that wrote them"

    def answer(self, use: Use) -> Answer:
        match use.operation:
            case Operation.COPY | Operation.CAST | Operation.COMPUTE if not self.folder:
                return Say(self.text, self.hint)
            case Operation.COPY | Operation.CAST | Operation.COMPUTE | Operation.LOAD:
                return Refuse(self.text, self.hint, may_insist=True)
        return FINE


@dataclass(frozen=True, slots=True)
class LayerFile(Fact):
    """A file of DeepSpeed with some layers or experts of a model; `files` beside it have others, `folder` all."""

    files: tuple[str, ...] = ()
    folder: str = ""

    name = "layer-file"
    may_be_allowed = True
    tells = True
    level = "warning"
    grade = "error"

    @property
    def text(self) -> str:
        return f"DeepSpeed keeps layers or experts of this model in files beside it: {listed(self.files, 2)}"

    @property
    def hint(self) -> str:
        return f"open the folder, which joins them: {self.folder}"

    def answer(self, use: Use) -> Answer:
        match use.operation:
            case Operation.COPY | Operation.CAST | Operation.COMPUTE | Operation.LOAD:
                return Refuse(self.text, self.hint, may_insist=True)
        return FINE


@dataclass(frozen=True, slots=True)
class Pieces(Fact):
    """A file of torch.distributed's Hugging Face writer: `keys` are stored in pieces, of which this file has one.

    `folder` is the one that holds all of them.
    """

    folder: str = ""

    name = "pieces"
    may_be_allowed = True
    tells = True
    level = "warning"
    grade = "error"

    @property
    def text(self) -> str:
        return "torch.distributed wrote this file as one rank's part: its tensors are pieces of larger ones"

    @property
    def hint(self) -> str:
        return f"open the folder, which joins the pieces: {self.folder}"

    def answer(self, use: Use) -> Answer:
        listed = f"{many(len(use.keys), 'tensor')} may be one rank's piece of a larger one: {', '.join(use.keys[:3])}"
        match use.operation:
            case Operation.COPY | Operation.CAST | Operation.COMPUTE | Operation.LOAD:
                return Refuse(listed, self.hint, may_insist=True)
        return FINE


@dataclass(frozen=True, slots=True)
class DistributedPart(Fact):
    """Distributed tensors (DTensor, ShardedTensor) of which this file has one rank's parts; `folder` holds it."""

    folder: str = ""

    name = "rank-part"
    level = "warning"
    grade = "error"

    @property
    def text(self) -> str:
        return f"{many(len(self.keys), 'tensor')} stored in parts, of which this file has one: {listed(self.keys, 3)}"

    @property
    def hint(self) -> str:
        return f"open the folder with the files of all ranks: {self.folder}"

    def answer(self, use: Use) -> Answer:
        if use.operation in TAKES_VALUES:
            return Refuse(self.text, self.hint)
        return FINE


@dataclass(frozen=True, slots=True)
class Several(Fact):
    """Further checkpoints in the folder that was opened.

    Attributes:
        chosen: the file that was opened.
        unopened: the names of the others.
        is_part: nothing says that the one that was opened is the one that is meant, or all that there is.
    """

    chosen: str = ""
    unopened: tuple[str, ...] = ()
    is_part: bool = False

    name = "several"
    may_be_allowed = True
    rank = -1

    @property
    def text(self) -> str:
        more = f" and {len(self.unopened) - 5:,} more" if len(self.unopened) > 5 else ""
        return f"also in this folder, and not opened: {', '.join(self.unopened[:5])}{more}"

    @property
    def hint(self) -> str:
        return ""

    def answer(self, use: Use) -> Answer:
        match use.operation:
            case Operation.COPY | Operation.CAST | Operation.COMPUTE | Operation.LOAD:
                if self.is_part:
                    return Refuse(
                        f"the folder holds more than {self.chosen}; {self.text}",
                        "name the file that is meant: {file}",
                        may_insist=True,
                    )
                return Say(self.text)
        return FINE


def one_of_shards(checkpoint: Checkpoint) -> int:
    """How many shards there are of a checkpoint of which this file is one; 0 for a whole one."""
    match = SHARD_NAME.fullmatch(checkpoint.path.name)
    if match is None or [file.path for file in checkpoint.files] not in ([], [checkpoint.path]):
        return 0
    return int(match["count"]) if int(match["count"]) > 1 else 0


@finder
def find_shard(headers: Headers) -> Iterator[Shard]:
    count = one_of_shards(headers.checkpoint)
    if count:
        yield Shard(of=count, folder=str(headers.checkpoint.path.parent))


@finder
def find_rank(headers: Headers) -> Iterator[Rank]:
    checkpoint = headers.checkpoint
    if [file.path for file in checkpoint.files] != [checkpoint.path]:
        return
    for place in (checkpoint.path, checkpoint.path.parent):
        match = _RANK.search(place.name)
        if match is None:
            continue
        before, after = re.escape(place.name[: match.start("number")]), re.escape(place.name[match.end() :])
        width = len(match["number"]) if match["number"].startswith("0") else "1,5"
        alike = re.compile(rf"{before}\d{{{width}}}{after}")
        siblings = [name for name in _names_beside(place) if name != place.name and alike.fullmatch(name)]
        if place != checkpoint.path:
            siblings = [name for name in siblings if is_file(place.parent / name / checkpoint.path.name)]
        if siblings:
            whole = joining_folder(locate_folder(place.parent))
            yield Rank(file=place.name, siblings=tuple(siblings), folder="" if whole is None else str(whole))
            return


@finder
def find_layer_file(headers: Headers) -> Iterator[LayerFile]:
    path = headers.checkpoint.path
    patterns = (LAYER_FILE, EXPERT_FILE)
    if [file.path for file in headers.checkpoint.files] != [path] or not is_deepspeed([path.name]):
        return
    names = [name for name in _names_beside(path) if any(pattern.fullmatch(name) for pattern in patterns)]
    others = tuple(name for name in names if name != path.name)
    if others:
        yield LayerFile(files=others, folder=str(path.parent))


def _names_beside(path: PurePath) -> list[str]:
    """The names in the folder of a file or folder."""
    try:
        return [entry.name for entry in locate_folder(path.parent).entries()[:_MOST_NAMES]]
    except CkptError:  # a folder may be searched but not listed
        return []


@finder
def find_pieces(headers: Headers) -> Iterator[Pieces]:
    checkpoint = headers.checkpoint
    told = checkpoint.metadata.get("DCP_SHARDING_INFO")
    if told is None or checkpoint.ranks is not None:
        return
    try:
        pieces = json.loads(told)
    except (ValueError, RecursionError):
        pieces = None
    named = tuple(key for key in checkpoint if key in pieces) if isinstance(pieces, Mapping) else tuple(checkpoint)
    if checkpoint:
        yield Pieces(named or tuple(checkpoint), str(checkpoint.path.parent))


@finder
def find_distributed(headers: Headers) -> Iterator[DistributedPart]:
    checkpoint = headers.checkpoint
    if checkpoint.columns is not None or checkpoint.ranks is not None:
        return
    keys = tuple(key for key, tensor in checkpoint.tensors.items() if is_part(tensor))
    if keys:
        yield DistributedPart(keys, str(checkpoint.path.parent))


@finder
def find_several(headers: Headers) -> Iterator[Several]:
    checkpoint = headers.checkpoint
    if not checkpoint.unopened:
        return
    chosen = checkpoint.files[0].name if checkpoint.files else checkpoint.path.name
    yield Several(chosen=chosen, unopened=checkpoint.unopened, is_part=_is_part(checkpoint, chosen))


def _is_part(checkpoint: Checkpoint, chosen: str) -> bool:
    """True if nothing but the order of names says that the opened file is the one that is meant."""
    if chosen in KNOWN or SHARD_NAME.fullmatch(chosen) or chosen.endswith(INDEX_ENDING) or len(checkpoint.files) > 1:
        return False
    return any(_stem(name) != _stem(chosen) for name in checkpoint.unopened)


def _stem(name: str) -> str:
    """A file's name without what says the format."""
    return name.removesuffix(INDEX_ENDING).rpartition(".")[0] or name
