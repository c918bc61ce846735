"""Files whose weights and biases have other names, lists told apart by what they hold, numbers with gaps, norms."""

from __future__ import annotations

import re
from random import Random
from types import ModuleType

import numpy as np
import pytest

from ckptool.core.plan import sources_of
from ckptool.core.spec import TensorSpec
from ckptool.engine.evaluate import compute
from ckptool.matching.blocks import laid_lists, likeness_of_lists
from ckptool.matching.cuts import units_of
from ckptool.matching.match import match
from ckptool.matching.result import Evidence
from ckptool.matching.roles import usual_names
from ckptool.recipes.expand import expand
from ckptool.recipes.recipe import parse_recipe

Rows = dict[str, tuple[int, ...]]


def specs(rows: Rows) -> dict[str, TensorSpec]:
    return {key: TensorSpec(key, "float32", shape) for key, shape in rows.items()}


def found(source: Rows, target: Rows) -> dict[str, tuple[str, ...]]:
    return {key: pair.sources for pair in match(specs(source), specs(target)).accepted() for key in pair.targets}


def conv_net(words: dict[str, str], separator: str = ".") -> Rows:
    """Three convolutions, each with its batch norm, and a Linear, with these words for the roles."""
    rows: Rows = {}
    for at in range(1, 4):
        rows[f"conv{at}.weight"] = (8 * at, 4 * at, 3, 3)
        rows |= {f"bn{at}.{role}": (8 * at,) for role in ("weight", "bias", "running_mean", "running_var")}
        rows[f"bn{at}.num_batches_tracked"] = ()
    rows |= {"fc.weight": (10, 24), "fc.bias": (10,)}
    return {
        f"{module.replace('.', separator)}{separator}{words[role]}": shape
        for key, shape in rows.items()
        for module, _, role in [key.rpartition(".")]
    }


USUAL = {role: role for role in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}


@pytest.mark.parametrize("separator", [".", "/", "_"])
@pytest.mark.parametrize("seed", range(3))
def test_roles_of_any_name_are_learned(seed: int, separator: str) -> None:
    """In the file's order the names may be anything: what stands together tells."""
    rng = Random(seed)
    words = {role: "".join(rng.choices("bdfghjklmnpqrstvxz", k=5)) for role in USUAL}
    keys, usual = conv_net(words, separator), conv_net(USUAL)
    names = usual_names(specs(keys))
    assert [name.rpartition(".")[2] for name in names.values()] == [key.rpartition(".")[2] for key in usual]


def test_what_only_the_order_tells_is_not_learned_from_sorted_files() -> None:
    words = dict(zip(USUAL, ("peso", "sesgo", "eee", "aaa", "cuenta"), strict=True))
    names = usual_names(specs(dict(sorted(conv_net(words).items()))))
    assert names["conv1.peso"] == "conv1.weight"
    assert not any(name.endswith(("running_mean", "running_var")) for name in names.values())
    words["running_var"] = "varianza"
    names = usual_names(specs(dict(sorted(conv_net(words).items()))))
    assert names["bn1.varianza"] == "bn1.running_var" and names["fc.sesgo"] == "fc.bias"


def test_usual_names_stay(torchvision: ModuleType) -> None:
    for model in (torchvision.models.resnet18(weights=None), torchvision.models.vit_b_16(weights=None)):
        rows = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
        assert usual_names(specs(rows)) == {}


def test_variables_of_keras_and_blobs_of_caffe() -> None:
    keras = {f"layers/dense_{n}/vars/{role}": (4 + n, 8)[role:] for n in range(3) for role in (0, 1)}
    keras |= {f"layers/batch_normalization_{n}/vars/{role}": (8,) for n in range(3) for role in range(4)}
    names = usual_names(specs(keras))
    assert names["layers/dense_1/vars/0"] == "layers/dense_1.weight"
    assert names["layers/batch_normalization_2/vars/3"] == "layers/batch_normalization_2.running_var"
    caffe: Rows = {}
    for n in range(3):
        caffe |= {f"conv{n}.0": (8, 8, 3, 3), f"conv{n}/bn.0": (8,), f"conv{n}/bn.1": (8,), f"conv{n}/bn.2": (1,)}
        caffe |= {f"conv{n}/scale.0": (8,), f"conv{n}/scale.1": (8,)}
    names = usual_names(specs(caffe))
    assert [names[f"conv1/{key}"] for key in ("bn.0", "bn.1", "bn.2", "scale.0", "scale.1")] == [
        "conv1/bn.running_mean", "conv1/bn.running_var", "conv1/bn.2", "conv1/bn.weight", "conv1/bn.bias",
    ]  # fmt: skip


def test_kernels_with_space_in_front_under_any_name() -> None:
    """Tensorpack: W, gamma, beta, mean/EMA; a projection back is as wide as the one there, turned."""
    source: Rows = {}
    target: Rows = {}
    for n in range(3):
        for at, (into, out, size) in enumerate([(16 + n, 8, 1), (8, 8, 3), (8, 16 + n, 1)], 1):
            here, there = f"group0/block{n}/conv{at}", f"layer1.{n}."
            source[f"{here}/W"] = (size, size, into, out)
            source |= {f"{here}/bn/{role}": (out,) for role in ("beta", "gamma", "mean/EMA", "variance/EMA")}
            target[f"{there}conv{at}.weight"] = (out, into, size, size)
            target |= {f"{there}bn{at}.{role}": (out,) for role in ("weight", "bias", "running_mean", "running_var")}
    for order in (lambda side: side, lambda side: dict(sorted(side.items()))):
        report = match(specs(order(source)), specs(order(target)))
        given = {key: pair for pair in report.accepted() for key in pair.targets}
        assert given.keys() == target.keys()
        assert given["layer1.2.conv3.weight"].sources == ("group0/block2/conv3/W",)
        assert given["layer1.2.conv3.weight"].layout == "h w i o -> o i h w"
        assert given["layer1.0.bn2.running_var"].sources == ("group0/block0/conv2/bn/variance/EMA",)


def test_sums_of_caffe_are_shown_and_not_taken() -> None:
    """Mean and variance are to be divided by the third blob; the hint's rule does so."""
    source: Rows = {}
    target: Rows = {}
    for n in range(3):
        source |= {f"conv{n}.0": (8 + n, 8, 3, 3), f"conv{n}/bn.0": (8 + n,), f"conv{n}/bn.1": (8 + n,)}
        source |= {f"conv{n}/bn.2": (1,), f"conv{n}/scale.0": (8 + n,), f"conv{n}/scale.1": (8 + n,)}
        target[f"conv{n}.weight"] = (8 + n, 8, 3, 3)
        target |= {f"bn{n}.{role}": (8 + n,) for role in ("weight", "bias", "running_mean", "running_var")}
    report = match(specs(source), specs(target))
    given = {key: pair.sources[0] for pair in report.accepted() for key in pair.targets}
    assert given == {
        key: source_key
        for n in range(3)
        for key, source_key in (
            (f"conv{n}.weight", f"conv{n}.0"),
            (f"bn{n}.weight", f"conv{n}/scale.0"),
            (f"bn{n}.bias", f"conv{n}/scale.1"),
        )
    }
    doubtful = {pair.targets[0] for pair in report.pairs if Evidence.UNDIVIDED in pair.evidence}
    assert doubtful == {f"bn{n}.running_{what}" for n in range(3) for what in ("mean", "var")}
    hint = next(note.hint for note in report.notes if "sums" in note.text)
    rules = re.findall(r'-r "([^"]+)"', hint)
    made = {step.target.key: step.value for step in expand(parse_recipe(rules), specs(source)).steps}
    for key, total in (("bn0.running_mean", 6.0), ("bn0.running_var", 8.0)):
        arrays = {
            one: np.full(source[one.key], 2.0 if one.key.endswith("2") else total, np.float32)
            for one in sources_of(made[key])
        }
        assert {one.key[-1] for one in arrays} == {"01"[key.endswith("var")], "2"}
        assert np.asarray(compute(made[key], arrays)).tolist() == [total / 2] * 8


def test_reports_are_in_the_keys_of_the_files() -> None:
    words = dict(zip(USUAL, ("poids", "biais", "moyenne", "variance", "compteur"), strict=True))
    source, target = conv_net(words), conv_net(USUAL)
    report = match(specs(source), specs(target))
    pairs = {pair.targets[0]: pair.sources[0] for pair in report.accepted()}
    assert pairs == dict(zip(target, source, strict=True))
    assert report.weighed and report.weighed("bn2.poids")[0].targets == ("bn2.weight",)


def lists(towers: dict[str, list[tuple[int, ...]]], blocks: int = 4) -> Rows:
    return {
        f"{tower}.{n}.m{at}.weight": shape
        for tower, shapes in towers.items()
        for n in range(blocks)
        for at, shape in enumerate(shapes)
    }


def test_lists_are_told_apart_by_what_their_blocks_hold() -> None:
    """Nothing in common but shapes: the shorter blocks are an encoder's, the others have a second attention."""
    short, long = [(8, 8)] * 2 + [(32, 8)], [(8, 8)] * 4 + [(32, 8)]
    source, target = lists({"one": short, "two": long}), lists({"alpha": short, "beta": long})
    likeness = likeness_of_lists(units_of(specs(source)), units_of(specs(target)))
    assert likeness[("one", "#"), ("alpha", "#")] == 1.0
    assert likeness[("one", "#"), ("beta", "#")] == pytest.approx(2 * 3 / 8)
    given = {key: sources[0] for key, sources in found(source, target).items()}
    wide = {key: made for key, made in given.items() if target[key] == (32, 8)}
    assert wide == {
        key: key.replace("alpha", "one").replace("beta", "two") for key, shape in target.items() if shape == (32, 8)
    }


def test_parts_are_joined_in_fewer_blocks() -> None:
    """Five of eight layers, with q, k and v in one."""
    source: Rows = {"embed.weight": (100, 8)}
    target: Rows = {"tok.weight": (100, 8)}
    for n in range(8):
        source |= {f"layers.{n}.attn.{part}_proj.weight": (8, 8) for part in "qkv"}
        source |= {f"layers.{n}.fc1.weight": (32, 8), f"layers.{n}.fc2.weight": (8, 32)}
        if n < 5:
            target |= {f"blocks.{n}.attn.qkv.weight": (24, 8)}
            target |= {f"blocks.{n}.fc1.weight": (32, 8), f"blocks.{n}.fc2.weight": (8, 32)}
    given = found(source, target)
    for n in range(5):
        parts = tuple(f"layers.{n}.attn.{part}_proj.weight" for part in "qkv")
        assert given[f"blocks.{n}.attn.qkv.weight"] == parts


@pytest.mark.parametrize(
    ("here", "there", "pairs"),
    [
        ((0, 1, 3), (0, 1, 2, 3), {0: 0, 1: 1, 3: 3}),  # a block is gone: the others keep their numbers
        ((0, 2, 4), (0, 1, 2), {0: 0, 2: 1, 4: 2}),  # as many: counted anew
        ((1, 3, 5, 7), (0, 1, 2), {1: 0, 3: 1, 5: 2}),  # others stand between
        ((1, 2, 3), (0, 1, 2), {1: 0, 2: 1, 3: 2}),  # counted from 1
    ],
)
def test_numbers_with_gaps(here: tuple[int, ...], there: tuple[int, ...], pairs: dict[int, int]) -> None:
    ours, theirs = (
        units_of(specs({f"{name}.{n}.{m}.weight": (4, 4 + m) for n in numbers for m in range(3)}))
        for name, numbers in (("a", here), ("b", there))
    )
    (laid,) = laid_lists(ours, theirs)
    assert {a[0]: b[0] for a, b in laid.blocks.items()} == pairs


def test_a_sibling_does_not_leave_a_module_that_has_a_place_for_it() -> None:
    """RWKV: the norm inside of the attention is not the norm in front of it."""
    source, target = {}, {}
    for block in range(4):
        for here, there in (("att", "attn"),):
            for name, shape in (("q", (8, 8)), ("key", (8, 4)), ("value", (8, 2)), ("out", (8, 16))):
                source[f"blocks.{block}.{here}.{name}.weight"] = shape
                target[f"layers.{block}.{there}.{name}_proj.weight"] = shape
        for role in ("weight", "bias"):
            source |= {f"blocks.{block}.ln1.{role}": (8,), f"blocks.{block}.att.ln_x.{role}": (8,)}
            target |= {f"layers.{block}.attn_norm.{role}": (8,), f"layers.{block}.attn.g_norm.{role}": (8,)}
    given = found(source, target)
    assert len([key for key in given if "proj" in key]) == 16
    assert all("ln_x" not in given.get(f"layers.{block}.attn_norm.weight", ("",))[0] for block in range(4))


def test_norms_hang_on_matrices_by_container_or_number() -> None:
    source, target = {}, {}
    for block in range(3):
        for at, shape in enumerate([(16, 64), (32, 16), (64, 32)], 1):
            source |= {f"layer.{block}.conv{at}.weight": (*shape, 1, 1), f"layer.{block}.bn{at}.weight": shape[:1]}
            place = f"stage.{block}.{'xyz'[at - 1]}"
            target |= {f"{place}.conv.weight": (*shape, 1, 1), f"{place}.norm.weight": shape[:1]}
    source, target = (dict(sorted(side.items())) for side in (source, target))
    given = found(source, target)
    assert given == {
        key: (
            key.replace("stage", "layer")
            .replace(f".{letter}.conv", f".conv{at}")
            .replace(f".{letter}.norm", f".bn{at}"),
        )
        for key in target
        for at, letter in enumerate("xyz", 1)
        if f".{letter}." in key
    }
