"""Megatron folders of before its distributed checkpoints: a torch file for each tensor- and pipeline-parallel rank.

``mp_rank_01_002/model_optim_rng.pt`` is tensor-parallel rank 1 of pipeline stage 2. Nothing states along which axis a
tensor was cut: its name does, by the table below. Layers are numbered within their stage. A third number is the
expert-parallel rank (the second one without pipeline stages): each holds a range of a layer's experts, numbered from 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePath

from ckptool.core.bytes import Folder
from ckptool.core.checkpoint import Checkpoint, GlobalUse
from ckptool.core.errors import UnreadableError
from ckptool.core.format import Format
from ckptool.core.observations import Observation, ReplicasDiffer
from ckptool.core.ranks import Ranks
from ckptool.core.tensor import Tensor
from ckptool.formats.pickle.objects import Dict
from ckptool.formats.ranks.by_axis import WHOLE, Shard, joined
from ckptool.formats.ranks.files import RankFile, opened, read_rank
from ckptool.formats.ranks.held import are_equal
from ckptool.formats.ranks.names import MAX_RANKS, listed
from ckptool.formats.ranks.stand_ins import Joined, StandIns, joined_checkpoint
from ckptool.formats.torch.tensor import is_tensor

NAME = re.compile(r"mp_rank_(?P<tp>\d{2,4})(?:_(?P<pp>\d{3,4}))?(?:_(?P<ep>\d{3,4}))?")
FILE = "model_optim_rng.pt"
_MODEL = re.compile(r"model(?P<chunk>\d*)")
_LAYER = re.compile(r"(?P<before>(?:^|.*\.)layers\.)(?P<number>\d+)(?P<after>\..+)")
_ROWS = re.compile(
    r"word_embeddings(?:_for_head)?\.weight|output_layer\.weight|lm_head\.weight|(?:linear_qkv|query_key_value|query|key_value"
    r"|linear_q_up_proj|linear_kv_up_proj|linear_fc1|dense_h_to_4h)\.(?:weight|bias)"
)
_COLUMNS = re.compile(r"(?:linear_proj|linear_fc2|dense_4h_to_h)\.weight|(?:self_)?attention\.dense\.weight")
_EQUAL = re.compile(
    r"(?:.*(?:norm|layernorm)\w*|router|position_embeddings|linear_q_down_proj|linear_kv_down_proj|q_layernorm"
    r"|k_layernorm)\.(?:weight|bias|expert_bias)|(?:linear_proj|linear_fc2|dense|dense_4h_to_h)\.bias"
    r"|linear_(?:qkv|fc1)\.layer_norm_(?:weight|bias)|.*inv_freq|expert_bias"
)
_GATED = re.compile(r"(?:linear_fc1|dense_h_to_4h)\.(?:weight|bias)")
_FUSED = re.compile(r"(?:in_proj|conv1d|A_log|dt_bias|D)(?:\.|$)")
_EXPERT = re.compile(r"\.(?:local_experts|experts)\.")
_LOCAL = re.compile(
    r"(?P<before>.*\.local_experts\.|.*\.experts\.linear_fc[12]\.(?:weight|bias))(?P<number>\d{1,9})(?P<after>.*)"
)
_NUMBERED = re.compile(r"(\.(?:weight|bias))\d+$")
_EMBEDDING = "word_embeddings.weight"
_OUTPUTS = ("word_embeddings_for_head.weight", "output_layer.weight")


def open_legacy_iteration(folder: Folder, select: str | None = None, path: PurePath | None = None) -> Checkpoint:
    """Open one iteration, ``iter_0000010``.

    Args:
        folder: holds a folder for each rank.
        select: which dict to take as the weights; None for the model.
        path: what the user named, where that is another folder.

    Raises:
        UnreadableError: a rank is missing or damaged, the ranks are of different iterations, or a tensor was cut in a
            way that its name does not tell.
        UsageError: nothing is under `select`.
    """
    return _Iteration(folder).checkpoint(path or folder.path, select)


@dataclass(frozen=True, slots=True)
class _Place:
    """The numbers of a rank."""

    tp: int
    pp: int
    ep: int

    @property
    def who(self) -> str:
        return f"rank tp {self.tp}, pp {self.pp}" + (f", ep {self.ep}" if self.ep else "")


class _Iteration:
    """The files of one iteration, joined stage by stage."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.path = folder.path
        self.globals: list[tuple[GlobalUse, ...]] = []
        self.observations: dict[Observation, None] = {}
        self._differing: list[str] = []
        self._embedding: list[Tensor] = []
        self.names = self._places()
        if _Place(0, 0, 0) not in self.names:
            raise self._lacks(_Place(0, 0, 0), ["mp_rank_00"])
        first = self._file(_Place(0, 0, 0))
        self.stand_ins = StandIns(first.source)
        self.first = first
        self.head = first.entries(first.root)
        self.args = {**first.entries(self.head.get("args")), **first.state(self.head.get("args"))}
        self.sources = [first.source]
        if self._number("pipeline_model_parallel_size") == 1 and self._number("expert_model_parallel_size") > 1:
            self.names = {_Place(p.tp, p.ep, p.pp or p.ep): name for p, name in self.names.items()}
        self.tp = max(place.tp for place in self.names) + 1
        self.pp = max(place.pp for place in self.names) + 1
        self.ep = max(place.ep for place in self.names) + 1
        if self.tp * self.pp * self.ep > MAX_RANKS:
            raise UnreadableError(f"{self.path} holds files of more than {MAX_RANKS:,} ranks", path=self.path)
        self._check_complete()
        self._check_arguments()

    def checkpoint(self, path: PurePath, select: str | None) -> Checkpoint:
        """All ranks as one."""
        tensors: dict[str, Tensor] = {}
        for key, tensor in self._tensors():
            known = tensors.get(key)
            if known is None:
                tensors[key] = tensor
            elif are_equal(known, tensor) is False or known.shape != tensor.shape:
                raise UnreadableError(
                    f"two stages of the pipeline hold {key}, and differ",
                    hint="the files are not of one iteration: copy the folder again",
                    path=self.path,
                    key=key,
                )
        items: list[tuple[object, object]] = [("model", Dict([(k, self.stand_ins.of(t)) for k, t in tensors.items()]))]
        for name, node in self.head.items():
            if _MODEL.fullmatch(name) is None and name not in ("optimizer", "rng_state"):
                items.append((name, self.stand_ins.adopt(node, self.first.archive)))
        iteration = self.head.get("iteration")
        return joined_checkpoint(
            Joined(
                path=path,
                format=Format("Megatron", is_pickle=True, ranks=self.tp * self.pp * self.ep),
                root=Dict(items),
                stand_ins=self.stand_ins,
                files=tuple(dict.fromkeys(self.sources)),
                globals=tuple(self.globals),
                observations=(*self.observations, *self._replicas()),
                ranks=Ranks(
                    self.tp * self.pp * self.ep,
                    (("tp", self.tp), ("pp", self.pp), *((("ep", self.ep),) if self.ep > 1 else ())),
                    step=iteration if type(iteration) is int else None,
                ),
                faithful=self.first.archive.loaded.faithful,
            ),
            select if select is not None else "model",
        )

    def _replicas(self) -> Iterator[Observation]:
        if self._differing:
            yield ReplicasDiffer(tuple(self._differing), 0)

    def _places(self) -> dict[_Place, str]:
        found = {}
        for entry in self.folder.entries():
            match = NAME.fullmatch(entry.name) if entry.is_folder else None
            if match is not None:
                found[_Place(int(match["tp"]), int(match["pp"] or 0), int(match["ep"] or 0))] = entry.name
        return found

    def _number(self, name: str) -> int:
        """A number among the arguments of the training script; 1 where it is not stated."""
        value = self.args.get(name)
        return value if type(value) is int else 1

    def _check_complete(self) -> None:
        wanted = [_Place(tp, pp, ep) for pp in range(self.pp) for ep in range(self.ep) for tp in range(self.tp)]
        absent = [place for place in wanted if place not in self.names]
        if absent:
            raise self._lacks(absent[0], [self._name_of(place) for place in absent])

    def _name_of(self, place: _Place) -> str:
        """The folder of a rank: as many numbers as there are ways to spread the model."""
        staged, spread = f"_{place.pp:03}", f"_{place.ep:03}"
        count = max(name.count("_") for name in self.names.values()) - 2
        if self.ep > 1 or place.ep:
            return f"mp_rank_{place.tp:02}" + (staged if count > 1 or self.pp > 1 or place.pp else "") + spread
        return f"mp_rank_{place.tp:02}" + (staged if count > 0 or place.pp else "")

    def _check_arguments(self) -> None:
        """The training script's arguments say as many ranks as there are folders."""
        stated = (
            ("tensor_model_parallel_size", self.tp, _Place(self.tp, 0, 0)),
            ("pipeline_model_parallel_size", self.pp, _Place(0, self.pp, 0)),
            ("expert_model_parallel_size", self.ep, _Place(0, 0, self.ep)),
        )
        for name, count, next_place in stated:
            size = self.args.get(name)
            if type(size) is int and size > count:
                raise self._lacks(next_place, [self._name_of(next_place)])
            if type(size) is int and size < count:
                raise UnreadableError(
                    f"{self.path} holds {count} folders along {name}, the arguments in it say {size}",
                    hint="they are of two saves, with different numbers of ranks",
                    path=self.path,
                )

    def _lacks(self, place: _Place, names: Sequence[str]) -> UnreadableError:
        return UnreadableError(
            f"{place.who} is missing in {self.path}: {listed(names)}",
            hint="every rank wrote a folder: copy all of them from where the checkpoint was saved",
            path=self.path / names[0],
        )

    def _file(self, place: _Place) -> RankFile:
        name = self.names[place]
        source = opened(self.folder.folder(name), FILE)
        if source is None:
            raise UnreadableError(
                f"{place.who}: {self.path / name} holds no {FILE}",
                hint="copy it from where the checkpoint was saved",
                path=self.path / name,
            )
        file = read_rank(source, place.who)
        self.globals.append(file.archive.loaded.globals)
        self.observations.update(dict.fromkeys(file.archive.observations))
        return file

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The whole tensors, stage by stage."""
        for pp in range(self.pp):
            places = [_Place(tp, pp, ep) for ep in range(self.ep) for tp in range(self.tp)]
            files = [self.first if place == _Place(0, 0, 0) else self._file(place) for place in places]
            self.sources += [file.source for file in files]
            heads = [file.entries(file.root) for file in files]
            for file, head in zip(files, heads, strict=True):
                if head.get("iteration") != self.head.get("iteration"):
                    ours, theirs = self.head.get("iteration"), head.get("iteration")
                    raise UnreadableError(
                        f"the ranks differ in the iteration: {self.first.source.path} has {ours}, "
                        f"{file.source.path} has {theirs}",
                        hint="the files are not of one save: copy the folder again",
                        path=file.source.path,
                    )
            chunks = sorted((name for name in heads[0] if _MODEL.fullmatch(name)), key=lambda n: int(n[5:] or 0))
            if not chunks:
                raise files[0].bad("holds no model")
            for number, chunk in enumerate(chunks):
                models = [dict(_flat(file, head.get(chunk))) for file, head in zip(files, heads, strict=True)]
                yield from self._chunk(pp, number, len(chunks), files, models)

    def _chunk(
        self, pp: int, number: int, chunks: int, files: Sequence[RankFile], models: Sequence[Mapping[str, Tensor]]
    ) -> Iterator[tuple[str, Tensor]]:
        """The tensors of a stage, or of one part of it, with the numbers of layers in the whole model."""
        for file, model in zip(files, models, strict=True):
            if model.keys() != models[0].keys():
                key = next(iter(model.keys() ^ models[0].keys()))
                raise file.bad(f"does not hold the same tensors as {files[0].source.path}: {key}", key)
        offset = self._offset(pp, number, chunks, models[0])
        ranks = [slice(ep * self.tp, (ep + 1) * self.tp) for ep in range(self.ep)]
        counts = self._local_experts(files[0], models[0])
        for is_expert, keys in groupby(models[0], key=lambda key: _EXPERT.search(key) is not None):
            names = [key for key in keys if key.rpartition(".")[2] != "_extra_state"]
            for ep, key in ((ep, key) for ep in range(self.ep if is_expert else 1) for key in names):
                who = zip(files[ranks[ep]], models[ranks[ep]], strict=True)
                shards = [Shard(file.who, file.name, model[key]) for file, model in who]
                match = _LAYER.fullmatch(key)
                whole = f"{match['before']}{int(match['number']) + offset}{match['after']}" if match else key
                if self._is_copy(key, pp, shards):
                    continue
                halves = 2 if self._is_gated(key) else 1
                local = _LOCAL.fullmatch(whole) if is_expert and self.ep > 1 else None
                if local is not None:
                    count = counts[_LOCAL.sub(r"\g<before>", key)]
                    whole = f"{local['before']}{int(local['number']) + ep * count}{local['after']}"
                yield whole, joined(self.path, whole, shards, self._axis(key), self._differing, halves)
                for copies in () if is_expert else ranks[1:]:
                    if any(are_equal(a.tensor, b[key]) is False for a, b in zip(shards, models[copies], strict=True)):
                        self._differing.append(whole)
                        break

    def _local_experts(self, file: RankFile, model: Mapping[str, Tensor]) -> dict[str, int]:
        """How many experts of each layer a rank holds, by the part of their names before the number.

        Raises:
            UnreadableError: they are spread over ranks in a way that the names do not tell.
        """
        experts = [key for key in model if _EXPERT.search(key) and key.rpartition(".")[2] != "_extra_state"]
        tensor_parallel = self.args.get("expert_tensor_parallel_size")
        if experts and type(tensor_parallel) is int and tensor_parallel != self.tp:
            raise file.bad(
                f"holds experts cut over {tensor_parallel} ranks, other tensors over {self.tp}: which rank holds which "
                "part is not stated",
                hint="convert it with Megatron: --ckpt-convert-format torch_dist",
            )
        counts: dict[str, int] = {}
        for key in experts if self.ep > 1 else ():
            match = _LOCAL.fullmatch(key)
            if match is None:
                raise file.bad(
                    f"holds the experts of one rank as one tensor, {key}: how to join the ranks' is not stated",
                    key,
                    hint="convert it with Megatron: --ckpt-convert-format torch_dist",
                )
            counts[match["before"]] = max(counts.get(match["before"], 0), int(match["number"]) + 1)
        stated = self.args.get("num_experts")
        for before, count in counts.items():
            if type(stated) is int and count * self.ep != stated:
                raise file.bad(
                    f"holds {count} experts of {before.rstrip('.')} on each of {self.ep} ranks, the arguments state "
                    f"{stated} in all",
                    hint="the folders are not of one save: copy them again",
                )
        return counts

    def _is_copy(self, key: str, pp: int, shards: Sequence[Shard]) -> bool:
        """True for the copy of the embedding that the last stage keeps as the output of a tied model."""
        if key.endswith(_EMBEDDING):
            self._embedding = [shard.tensor for shard in shards] if pp == 0 else self._embedding
            return False
        if pp == 0 or not key.endswith(_OUTPUTS) or self.args.get("untie_embeddings_and_output_weights") is True:
            return False
        pairs = zip(self._embedding, shards, strict=False)
        return len(self._embedding) == len(shards) and all(are_equal(a, b.tensor) is True for a, b in pairs)

    def _offset(self, pp: int, chunk: int, chunks: int, model: Mapping[str, Tensor]) -> int:
        """The number that the first layer of a part has in the whole model."""
        if self.pp == 1 and chunks == 1:
            return 0
        numbers = {int(match["number"]) for key in model if (match := _LAYER.fullmatch(key)) is not None}
        here, layers = len(numbers), self.args.get("num_layers")
        if type(layers) is not int or here * self.pp * chunks != layers:
            raise UnreadableError(
                f"stage {pp} of {self.pp} holds {here} layers, of {layers} in all: which numbers they have is not told",
                hint="convert it with Megatron: --ckpt-convert-format torch_dist",
                path=self.path,
            )
        return (chunk * self.pp + pp) * here

    def _axis(self, key: str) -> int | None:
        """Along which axis a tensor was cut; None for a name that says nothing."""
        key = _NUMBERED.sub(r"\1", key) if _EXPERT.search(key) else key
        last = ".".join(key.split(".")[-2:])
        last_three = ".".join(key.split(".")[-3:])
        if _FUSED.search(last):
            return None
        if _ROWS.fullmatch(last):
            return 0
        if _COLUMNS.fullmatch(last) or _COLUMNS.fullmatch(last_three):
            return 1
        return WHOLE if _EQUAL.fullmatch(last) else None

    def _is_gated(self, key: str) -> bool:
        """True where the gate lies before the other half on every rank."""
        key = _NUMBERED.sub(r"\1", key) if _EXPERT.search(key) else key
        if not _GATED.fullmatch(".".join(key.split(".")[-2:])):
            return False
        names = ("swiglu", "gated_linear_unit", "glu_activation")
        return any(self.args.get(name) not in (None, False) for name in names)


def _flat(file: RankFile, node: object) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a model's nested dicts by dotted path."""
    stack: list[tuple[str, object]] = [("", node)]
    seen: set[int] = set()
    while stack:
        key, node = stack.pop()
        if is_tensor(node):
            tensor = file.tensor(node, key)
            if tensor is not None:
                yield key, tensor
        elif id(node) not in seen:
            seen.add(id(node))
            below = [(f"{key}.{name}" if key else name, child) for name, child in file.entries(node).items()]
            stack.extend(reversed(below))
