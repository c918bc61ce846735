"""Moving averages (EMA, SWA) among the keys, and the checkpoint with the averages in the place of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.counts import many
from ckptool.core.errors import UsageError
from ckptool.core.facts import Fact
from ckptool.facts.headers import Headers
from ckptool.facts.registry import facts_of, finder


@dataclass(frozen=True, slots=True)
class MovingAverage(Fact):
    """A moving average among the keys of the file.

    Attributes:
        averages: (key of the average, key that it takes when it stands for the weights).
        kind: how it is stored: "AveragedModel", "LitEma", "prefix", "mmcv".
        place: the prefix of the averages.
    """

    averages: tuple[tuple[str, str], ...] = ()
    kind: str = ""
    place: str = ""

    name = "average"
    tells = True
    rank = 8

    @property
    def text(self) -> str:
        count = many(len(self.averages), "key")
        match self.kind:
            case "AveragedModel":
                return (
                    "it is a moving average, as torch's AveragedModel saves it: n_averaged, and the model under "
                    '"module."'
                )
            case "LitEma":
                return f"{count} under model_ema are a moving average of those under model, without their dots"
            case "mmcv":
                return f'{count} that begin with "ema_" are a moving average of the others, as mmcv saves it'
        return f'{count} under "{self.place}" are a moving average of the weights'

    @property
    def remedy(self) -> str:
        if self.kind == "AveragedModel":
            return "the model alone: ckptool remap {file} -r 'n_averaged -> !' -r 'module. ->' -o PLAIN"
        away = "ema_*" if self.kind == "mmcv" else f"{self.place}**"
        if self.kind == "LitEma":
            away = "model_ema.*"
        return f"take it: ckptool filter {{file}} --ema -o OUT   leave it out: --drop '{away}'"


def averaged(checkpoint: Checkpoint, reopen: Callable[[str], Checkpoint]) -> Checkpoint:
    """The checkpoint with the moving average in the place of the weights that it is of.

    Args:
        checkpoint: the opened file.
        reopen: opens the file again with another selection.

    Raises:
        UsageError: the file has no moving average, or it cannot be known whose averages they are.
    """
    if checkpoint.selection.ema is not None:
        inner = reopen(checkpoint.selection.ema)
        fact = next((fact for fact in facts_of(inner) if isinstance(fact, MovingAverage)), None)
        return inner if fact is None or fact.kind != "AveragedModel" else with_averages(inner, fact)
    fact = next((fact for fact in facts_of(checkpoint) if isinstance(fact, MovingAverage)), None)
    if fact is not None:
        return with_averages(checkpoint, fact)
    others = ", ".join(checkpoint.selection.others)
    hint = f"other weights that --select takes: {others}" if others else "it holds no other weights"
    raise UsageError(f"{checkpoint.path} holds no moving average", hint=hint, path=checkpoint.path)


def with_averages(checkpoint: Checkpoint, fact: MovingAverage) -> Checkpoint:
    """The checkpoint with each average under its own key; weights without an average stay as they are.

    Raises:
        UsageError: two weights have one average, so that nobody can tell whose it is.
    """
    by_key = {key: average for average, key in fact.averages}
    firsts: dict[str, str] = {}
    for average, key in fact.averages:
        first = firsts.setdefault(average, key)
        if first != key:
            raise UsageError(
                f"{average} is the average of {first} or of {key}: they are one name without their dots",
                path=checkpoint.path,
            )
    left_out = set(fact.keys)
    tensors = {}
    for key, tensor in checkpoint.tensors.items():
        if key in by_key:  # where the weight stands
            chosen = checkpoint.tensors[by_key[key]]
            tensors[key] = replace(chosen, spec=replace(chosen.spec, key=key))
        elif key not in left_out:
            tensors[key] = tensor
    for average, key in fact.averages:
        if key not in tensors:
            chosen = checkpoint.tensors[average]
            tensors[key] = replace(chosen, spec=replace(chosen.spec, key=key))
    return replace(checkpoint, tensors=tensors)


@finder
def find(headers: Headers) -> Iterator[MovingAverage]:
    for look in (_averaged_model, _litema, _prefixed, _mmcv):
        fact = look(headers)
        if fact is not None:
            yield fact
            return


def _averaged_model(headers: Headers) -> MovingAverage | None:
    """torch's AveragedModel: a buffer n_averaged, and the model under "module."."""
    keys = headers.keys
    if "n_averaged" not in headers.modules or not all(key == "n_averaged" or key.startswith("module.") for key in keys):
        return None
    averages = tuple((key, key.removeprefix("module.")) for key in keys if key != "n_averaged")
    return MovingAverage(keys, averages, "AveragedModel", "module.") if averages else None


def _litema(headers: Headers) -> MovingAverage | None:
    """LitEma of latent diffusion writes the average of ``model.a.b.weight`` as ``model_ema.abweight``."""
    if "model_ema" not in headers.parts:
        return None
    tensors = headers.checkpoint.tensors
    dotless = tuple(key for key in headers.keys if key.startswith("model_ema.") and key.count(".") == 1)
    present = set(dotless)
    named = tuple(
        (f"model_ema.{key[len('model.') :].replace('.', '')}", key) for key in tensors if key.startswith("model.")
    )
    averages = tuple((average, key) for average, key in named if average in present)
    return MovingAverage(dotless, averages, "LitEma", "model_ema.") if averages else None


_ONLINE = ("online_model.", "model.", "module.", "net.", "network.", "")
_AVERAGES = ("ema_model.", "ema_model.module.", "model_ema.", "model_ema.module.", "ema.", "ema.module.",
             "ema_net.", "ema_network.", "averaged_model.", "average_model.", "_ema_model.", "swa_model.",
             "averaged_model.module.", "average_model.module.", "swa_model.module.")  # fmt: skip
_OWN = ("n_averaged", "initted", "step", "decay", "num_updates", "updates")


def _prefixed(headers: Headers) -> MovingAverage | None:
    """A second copy of the model under a name that says so: ``ema_model.``, beside ``model.`` or bare keys."""
    tensors = headers.checkpoint.tensors
    tops = {outline.partition(".")[0] for outline in headers.outlines}
    for place in sorted(_AVERAGES, key=len, reverse=True):
        if place.partition(".")[0] not in tops:
            continue
        below = [key for key in tensors if key.startswith(place) and key[len(place) :] not in _OWN]
        if not below:
            continue
        rest = [key for key in tensors if not key.startswith(f"{place.partition('.')[0]}.") and key not in _OWN]
        online = _online(below, place, rest, tensors)
        if online is None and rest:
            continue
        averages = tuple((key, (online or "") + key[len(place) :]) for key in below)
        own = tuple(key for key in tensors if key.startswith(f"{place.partition('.')[0]}."))
        own += tuple(key for key in tensors if key in _OWN)
        return MovingAverage(own, averages, "prefix", place)
    return None


def _online(below: list[str], place: str, rest: list[str], tensors: Mapping[str, object]) -> str | None:
    """The prefix under which most averages have their weights."""
    names = set(rest)
    for prefix in _ONLINE:
        hits = sum(prefix + key[len(place) :] in names for key in below)
        if hits * 2 > len(below):
            return prefix
    return None


def _mmcv(headers: Headers) -> MovingAverage | None:
    """mmcv's EMAHook keeps the average of ``backbone.conv1.weight`` as a buffer ``ema_backbone_conv1_weight``."""
    tensors = headers.checkpoint.tensors
    flats = (keys for outline, keys in headers.outlines.items() if outline.startswith("ema_") and "." not in outline)
    flat = set(chain.from_iterable(flats))
    if not flat:
        return None
    averages = tuple(
        (name, key) for key in tensors if (name := "ema_" + key.replace(".", "_")) in flat and key not in flat
    )
    if len({name for name, _ in averages}) * 2 <= len(flat):
        return None
    return MovingAverage(tuple(key for key in tensors if key in flat), averages, "mmcv", "ema_")
