"""Files that list the same network are laid on each other, whatever the names; what may stand otherwise stays open."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from ckptool.core.spec import TensorSpec
from ckptool.matching.match import match

Specs = dict[str, TensorSpec]
Shape = tuple[int, ...]


def specs(*rows: tuple[str, Shape]) -> Specs:
    return {key: TensorSpec(key, "float32", shape) for key, shape in rows}


def found(source: Specs, target: Specs) -> dict[str, str]:
    """The source of each target tensor that has one."""
    return {pair.targets[0]: pair.sources[0] for pair in match(source, target).accepted()}


def norm(name: str, size: int, roles: Sequence[str] = ("weight", "bias", "running_mean", "running_var")) -> Specs:
    return specs(*((f"{name}.{role}", (size,)) for role in roles))


KERAS = ("gamma", "beta", "moving_mean", "moving_variance")


def counted(widths: Sequence[int]) -> Specs:
    """Convolutions and norms in Keras' names."""
    made: Specs = {}
    for at, (here, there) in enumerate(pairwise(widths)):
        number = f"_{at}" if at else ""
        made |= specs((f"conv2d{number}.kernel", (3, 3, here, there)))
        made |= norm(f"batch_normalization{number}", there, KERAS)
    return made


def nested(widths: Sequence[int]) -> tuple[Specs, dict[str, str]]:
    """The same as stages and blocks, with the true sources."""
    made: Specs = {}
    truth: dict[str, str] = {}
    for at, (here, there) in enumerate(pairwise(widths)):
        number, name = f"_{at}" if at else "", f"stage{at // 3}.{at % 3}"
        made |= specs((f"{name}.layer.weight", (there, here, 3, 3))) | norm(f"{name}.scale", there)
        truth[f"{name}.layer.weight"] = f"conv2d{number}.kernel"
        for ours, theirs in zip(KERAS, ("weight", "bias", "running_mean", "running_var"), strict=True):
            truth[f"{name}.scale.{theirs}"] = f"batch_normalization{number}.{ours}"
    return made, truth


@settings(max_examples=25)
@given(st.lists(st.sampled_from([16, 24, 32, 48, 64, 96]), min_size=10, max_size=24))
def test_counted_names_are_never_matched_wrongly(widths: list[int]) -> None:
    target, truth = nested([3, *widths])
    for key, source in found(counted([3, *widths]), target).items():
        assert truth[key] == source


def test_counted_names_are_found_by_their_place() -> None:
    widths = [3, 16, 24, 24, 32, 32, 48, 64, 64, 96, 128, 128]
    target, truth = nested(widths)
    assert found(counted(widths), target) == truth


def test_a_source_in_the_order_of_its_letters_is_counted_on() -> None:
    widths = [3, 16, 24, 24, 32, 32, 48, 64, 64, 96, 128, 160, 192]
    source, (target, truth) = counted(widths), nested(widths)
    answers = found({key: source[key] for key in sorted(source)}, target)
    assert answers.items() <= truth.items()
    assert {key for key in truth if "layer" in key} <= answers.keys()


def transformer(names: Sequence[str], prefix: str, ends: Sequence[tuple[str, Shape]]) -> Specs:
    """Blocks of q, k, v, what joins them, and two matrices; each block is wider than the one before."""
    q, k, v, out, up, down = names
    rows = [ends[0]]
    for at in range(6):
        width = 32 + 8 * at
        rows += [(f"{prefix}.{at}.{name}.weight", (width, width)) for name in (q, k, v, out)]
        rows += [
            (f"{prefix}.{at}.{up}.weight", (4 * width, width)),
            (f"{prefix}.{at}.{down}.weight", (width, 4 * width)),
        ]
    return specs(*rows, ends[1])


def test_what_may_stand_in_another_order_stays_open() -> None:
    ends = ("stem.weight", (32, 3, 4, 4)), ("top.weight", (50, 72))
    ours = transformer(("q", "k", "v", "o", "fc1", "fc2"), "layers", ends)
    theirs = transformer(("uno", "dos", "tres", "o", "fc1", "fc2"), "capas", ends)
    answers = found(ours, theirs)
    assert all(answers[key] == f"layers.{key[6:]}" for key in answers if key.startswith("capas"))
    assert answers["capas.3.fc1.weight"] == "layers.3.fc1.weight"
    assert not [key for key in answers if key.split(".")[-2] in ("uno", "dos", "tres")]


def test_blocks_that_are_shifted_against_each_other_are_not_laid_on_their_neighbours() -> None:
    """A perceptron's last layer is listed before the one in the middle: each would begin in the one before."""
    heads = range(6)
    ours = [("stem.weight", (8, 3, 3, 3)), *((f"body.{at}.weight", (8 + 2 * at, 16)) for at in range(8))]
    theirs = [("root.weight", (8, 3, 3, 3)), *((f"trunk.{at}.weight", (8 + 2 * at, 16)) for at in range(8))]
    for at in heads:
        ours += [(f"heads.{at}.layers.{n}.weight", shape) for n, shape in enumerate([(16, 16), (16, 16), (4, 16)])]
        theirs += [
            (f"mlps.{at}.first.weight", (16, 16)),
            (f"mlps.{at}.last.weight", (4, 16)),
            (f"mlps.{at}.mid.0.weight", (16, 16)),
        ]
    for key, source in found(specs(*ours), specs(*theirs)).items():
        assert not key.startswith("mlps") or key.split(".")[1] == source.split(".")[1]


def test_roles_that_nobody_knows_are_learned() -> None:
    rows = [("norm{}", (32,)), ("fc{}", (64, 32)), ("out{}", (32, 64))]
    ours = {f"b.{at}.{name.format(at % 2)}.{role}": (shape if role == "weight" else shape[:1])
            for at in range(4) for name, shape in rows for role in ("weight", "bias")}  # fmt: skip
    theirs = {key.replace(".weight", ".peso").replace(".bias", ".sesgo"): shape for key, shape in ours.items()}
    answers = found(specs(*ours.items()), specs(*theirs.items()))
    assert answers == {key: key.replace(".peso", ".weight").replace(".sesgo", ".bias") for key in theirs}


def test_a_kernel_that_lies_as_torch_has_it_is_not_turned() -> None:
    rows = [("up", (64, 32)), ("down", (32, 64)), ("square", (32, 32))]
    ours = [(f"l.{at}.{name}.{role}", shape[: 2 - len(role) % 2])
            for at in range(3) for name, shape in rows for role in ("weight", "bias")]  # fmt: skip
    ours = [(key, shape if key.endswith("weight") else shape[:1]) for key, shape in ours]
    theirs = [(key.replace(".weight", ".kernel"), shape) for key, shape in ours]
    assert {pair.layout for pair in match(specs(*ours), specs(*theirs)).accepted()} == {""}


def test_a_pair_by_its_place_is_explained() -> None:
    widths = [3, 16, 24, 24, 32, 32, 48, 64, 64, 96, 128, 128]
    report = match(counted(widths), nested(widths)[0])
    assert report.weighed
    assert ("conv2d_3.kernel",) in [one.sources for one in report.weighed("stage1.0.layer.weight")]
