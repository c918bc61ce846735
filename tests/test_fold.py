from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptool.core.fold import Node, default_depth, fold, rollup, rows
from ckptool.core.keys import Pattern
from ckptool.core.shapes import braces

Entries = list[tuple[str, str]]


def resnet18() -> Entries:
    """The 122 keys of torchvision's resnet18 with their specs."""

    def norm(name: str, width: int) -> Entries:
        vectors = [(f"{name}.{last}", f"f32[{width}]") for last in ("weight", "bias", "running_mean", "running_var")]
        return [*vectors, (f"{name}.num_batches_tracked", "i64[]")]

    entries = [("conv1.weight", "f32[64,3,7,7]"), *norm("bn1", 64)]
    for stage, block in product(range(1, 5), range(2)):
        module, width = f"layer{stage}.{block}", 32 << stage
        inner = width // 2 if stage > 1 and not block else width
        entries += [(f"{module}.conv1.weight", f"f32[{width},{inner},3,3]"), *norm(f"{module}.bn1", width)]
        entries += [(f"{module}.conv2.weight", f"f32[{width},{width},3,3]"), *norm(f"{module}.bn2", width)]
        if inner != width:
            entries.append((f"{module}.downsample.0.weight", f"f32[{width},{inner},1,1]"))
            entries += norm(f"{module}.downsample.1", width)
    return [*entries, ("fc.weight", "f32[1000,512]"), ("fc.bias", "f32[1000]")]


def llama() -> Entries:
    parts = ["input_layernorm", "mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", "post_attention_layernorm"]
    parts += [f"self_attn.{x}_proj" for x in "koqv"]
    layers = [
        (f"model.layers.{n}.{part}.weight", f"bf16:{part[:6]}") for n in sorted(range(32), key=str) for part in parts
    ]
    return [("lm_head.weight", "e"), ("model.embed_tokens.weight", "e"), *layers, ("model.norm.weight", "n")]


def leaves(node: Node) -> list[Node]:
    found, stack = [], [node]
    while stack:
        node = stack.pop()
        stack.extend(node.children)
        if node.is_leaf:
            found.append(node)
    return found


def drawn(root: Node, depth: int | None = None) -> list[str]:
    return [f"{row.rails}{row.node.name}{' ...' if row.hidden else ''}" for row in rows(root, depth)]


def test_resnet18_looks_as_a_person_would_write_it() -> None:
    root = fold(resnet18())
    assert root.count == 122
    assert drawn(root, 1) == [
        "conv1.weight",
        "bn1 ...",
        "layer1.{0,1} ...",
        "layer2 ...",
        "layer3 ...",
        "layer4 ...",
        "fc ...",
    ]
    assert drawn(root)[:10] == [
        "conv1.weight",
        "bn1",
        "├─ {weight,bias,running_mean,running_var}",
        "└─ num_batches_tracked",
        "layer1.{0,1}",
        "├─ conv1.weight",
        "├─ bn1 ...",
        "├─ conv2.weight",
        "└─ bn2 ...",
        "layer2",
    ]
    layer1 = root.children[2]
    assert (layer1.copies, layer1.count, layer1.pattern) == (2, 24, "layer1.{0,1}.*")
    assert layer1.keys == layer1.sample == tuple(key for key, _ in resnet18() if key.startswith("layer1."))
    norm = layer1.children[1].children[0]
    assert norm.pattern == "layer1.{0,1}.bn1.{weight,bias,running_mean,running_var}"
    assert (len(norm.keys), norm.count, norm.sample[0]) == (8, 4, "layer1.0.bn1.weight")


def test_identical_layers_are_one_row_even_out_of_order() -> None:
    root = fold(llama())
    assert [line for line in drawn(root) if "{" in line] == ["├─ layers.{0-31}"]
    assert "│  ├─ mlp" in drawn(root)
    assert len(drawn(root)) == 16
    assert default_depth(root) == 4
    layers = root.children[1].children[1]
    assert (layers.copies, layers.count, layers.pattern) == (32, 288, "model.layers.{0-31}.*")


def test_series_fold_where_they_stand_together() -> None:
    vit = [(f"encoder.encoder_layer_{n}.{name}", name) for n in range(12) for name in ("ln_1.weight", "ln_1.bias")]
    assert drawn(fold(vit)) == ["encoder.encoder_layer_{0-11}.ln_1", "├─ weight", "└─ bias"]
    block = [("conv1.weight", "c"), ("bn1.weight", "b"), ("conv2.weight", "c"), ("bn2.weight", "b")]
    assert drawn(fold(block)) == ["conv1.weight", "bn1.weight", "conv2.weight", "bn2.weight"]


def test_labels_keep_subtrees_apart() -> None:
    root = fold([("a.0.w", "x"), ("a.1.w", "y"), ("a.2.w", "x"), ("a.3.w", "x")])
    assert drawn(root) == ["a", "├─ {0,2,3}.w", "└─ 1.w"]


def test_leaves_can_stay_apart() -> None:
    entries = [("bn.weight", "x"), ("bn.bias", "x"), ("p.0", "x"), ("p.1", "x")]
    assert drawn(fold(entries)) == ["bn.{weight,bias}", "p.{0,1}"]
    assert drawn(fold(entries, merge_leaves=False)) == ["bn", "├─ weight", "└─ bias", "p.{0,1}"]


def test_braces_that_nobody_can_read_are_not_made() -> None:
    words = [f"{a}{b}" for a in "abcde" for b in "vwxyz"]
    assert drawn(fold([(word, "x") for word in words])) == words
    assert drawn(fold([(f"w{n}", "x") for n in range(1000)])) == ["w{0-999}"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["9", "10", "11"], "{9-11}"),
        (["5", "0", "1"], "{0,1,5}"),
        (["00", "01", "02"], "{00-02}"),
        (["08", "09", "10", "11"], "{08,09,10,11}"),
        (["layer2", "layer3", "layer4"], "layer{2-4}"),
        (["weight", "w1", "w2", "w3"], "{weight,w{1-3}}"),
        (["0", "1", "2", "weight"], "{0-2,weight}"),
        (["a,b", "1-2"], "{a[,]b,1[-]2}"),
        (["a*"], "a[*]"),
    ],
)
def test_braces(names: list[str], expected: str) -> None:
    assert braces(names) == expected
    assert Pattern.parse(f"x.{expected}").select([f"x.{name}" for name in names]) == [f"x.{name}" for name in names]


parts = st.one_of(
    st.sampled_from(["0", "1", "2", "10", "01", "a", "b", "w1", "w2", "weight"]), st.text("{}[]*?!,-1a", max_size=3)
)
keys = st.lists(parts, min_size=1, max_size=4).map(".".join)
entries_of = st.dictionaries(keys, st.sampled_from("xy"), max_size=25).map(lambda found: list(found.items()))
repeated = st.tuples(st.lists(parts, min_size=1, max_size=4, unique=True), entries_of).map(
    lambda drawn: [(f"m.{part}.{key}", label) for part in drawn[0] for key, label in drawn[1]]
)


def check_tree(entries: Entries, root: Node) -> None:
    everything = [key for key, _ in entries]
    assert root.pattern == "*"
    assert set(root.keys) == set(everything)
    expanded = [(key, leaf.label) for leaf in leaves(root) for key in leaf.keys]
    assert sorted(expanded) == sorted(entries)  # lossless: the same keys with the same labels, each once
    for row in rows(root, depth=99):
        node = row.node
        assert sorted(Pattern.parse(node.pattern).select(everything)) == sorted(node.keys)
        assert len(node.sample) == node.count
        assert set(node.sample) <= set(node.keys)
        assert sum(child.count for child in node.children) * node.copies == node.count or node.is_leaf


@given(entries=st.one_of(entries_of, repeated), merge_leaves=st.booleans())
def test_folding_is_lossless_and_every_row_is_an_exact_pattern(entries: Entries, merge_leaves: bool) -> None:
    check_tree(entries, fold(entries, merge_leaves=merge_leaves))


def test_patterns_of_resnet18_are_exact() -> None:
    check_tree(resnet18(), fold(resnet18()))
    check_tree(llama(), fold(llama()))


def test_a_name_at_the_top_is_not_a_word() -> None:
    root = fold([("weight", "x"), ("a.weight", "y"), ("bias", "z"), ("", "e")])
    assert [(node.name, node.pattern) for node in root.children][:1] == [("weight", "[w]eight")]
    assert root.children[2].pattern == "bias"
    assert Pattern.parse(root.children[3].pattern).select(["", "a"]) == [""]


# ---------------------------------------------------------------------------------------------- rolling up


def rolled(entries: Sequence[tuple[str, str]], *together: str) -> list[tuple[str, int, str]]:
    groups = rollup(entries, together=together)
    everything = [key for key, _ in entries]
    labels = dict(entries)
    for group in groups:
        assert Pattern.parse(group.pattern).select(everything) == list(group.keys)
        assert {labels[key] for key in group.keys} == {group.label}
    assert sorted(key for group in groups for key in group.keys) == sorted(everything)
    return [(group.pattern, len(group.keys), str(group.label)) for group in groups]


@given(st.one_of(entries_of, repeated), st.sampled_from(["", "x", "xy"]))
def test_rows_of_a_rollup_are_exact_and_hold_every_key_once(entries: Entries, together: str) -> None:
    rolled(entries, *together)


@given(st.lists(st.tuples(keys, st.sampled_from(["a", "b.num", "num", "w.num"])), max_size=20), st.booleans())
def test_rows_by_last_part_are_exact(tails: list[tuple[str, str]], top: bool) -> None:
    entries = {f"{key}.{tail}": "added" if tail.endswith("num") else "same" for key, tail in tails}
    rolled([*entries.items(), *([("num", "added")] if top else [])])


def test_a_fine_tuned_resnet18() -> None:
    statuses = {key: "changed" if key.startswith("layer") else "same" for key, _ in resnet18()}
    statuses |= {"fc.weight": "reshaped to [10,512]", "fc.bias": "reshaped to [10]"}
    assert rolled(list(statuses.items())) == [
        ("conv1.weight", 1, "same"),
        ("bn1.*", 5, "same"),
        ("layer1.{0,1}.*", 24, "changed"),
        ("layer2.*", 30, "changed"),
        ("layer3.*", 30, "changed"),
        ("layer4.*", 30, "changed"),
        ("fc.weight", 1, "reshaped to [10,512]"),
        ("fc.bias", 1, "reshaped to [10]"),
    ]


def test_counters_scattered_through_the_tree_are_one_row() -> None:
    entries = [(key, "added" if key.endswith("tracked") else "same") for key, _ in resnet18()]
    assert rolled(entries) == [
        ("conv1.weight", 1, "same"),
        ("bn1.{weight,bias,running_mean,running_var}", 4, "same"),
        ("*.num_batches_tracked", 20, "added"),
        ("layer1.{0,1}.*.{weight,bias,running_mean,running_var}", 20, "same"),
        ("layer2.*.{weight,bias,running_mean,running_var}", 25, "same"),
        ("layer3.*.{weight,bias,running_mean,running_var}", 25, "same"),
        ("layer4.*.{weight,bias,running_mean,running_var}", 25, "same"),
        ("fc.*", 2, "same"),
    ]
    assert rolled(entries, "same") == [
        ("*.{weight,bias,running_mean,running_var}", 102, "same"),
        ("*.num_batches_tracked", 20, "added"),
    ]


def test_a_row_does_not_swallow_a_whole_model() -> None:
    assert rolled([(key, "changed") for key, _ in llama()]) == [
        ("lm_head.weight", 1, "changed"),
        ("model.embed_tokens.weight", 1, "changed"),
        ("model.layers.{0-31}.*", 288, "changed"),
        ("model.norm.weight", 1, "changed"),
    ]
    assert rolled([(key, "same") for key, _ in llama()], "same") == [("*", 291, "same")]


def test_frozen_and_trained_layers() -> None:
    half = [(key, "same" if n < 16 else "changed") for n in range(32) for key in (f"h.{n}.w", f"h.{n}.b.w")]
    assert rolled(half) == [("h.{0-15}.*", 32, "same"), ("h.{16-31}.*", 32, "changed")]


def test_nothing_to_roll_up() -> None:
    assert rollup([]) == []
    assert list(rows(fold([]))) == []


# ---------------------------------------------------------------------------------------------- size


def test_a_key_with_very_many_dots() -> None:
    deep = ".".join("a" * 20_000)
    root = fold([(deep, "x"), (deep + ".b", "x"), ("c", "y")])
    assert root.children[0].children[0].keys == (deep,)
    assert len(rollup([(deep, "x"), ("c", "y")])) == 2
    caterpillar = [(".".join("a" * n), "x") for n in range(1, 800)]
    assert len(list(rows(fold(caterpillar), depth=10_000))) == 2 * 799 - 2
    assert len(rollup(caterpillar)) == 1


def test_a_hundred_thousand_keys() -> None:
    names = [f"w{n}.{last}" for n in (1, 2, 3) for last in ("weight", "scale")]
    entries = [(f"model.layers.{n}.experts.{m}.{name}", name) for n in range(100) for m in range(167) for name in names]
    start = time.perf_counter()
    root = fold(entries)
    shown = list(rows(root))
    assert time.perf_counter() - start < 4  # 0.4 s on an idle machine
    assert root.count == len(entries) == 100_200
    assert shown[0].node.name == "model.layers.{0-99}.experts.{0-166}"
    assert len(shown[0].node.keys) == 100_200


def test_very_many_keys_at_one_level() -> None:
    start = time.perf_counter()
    root = fold([(f"{n * 7919 % 1_000_003:x}q", "x") for n in range(100_000)])
    assert sum(len(node.keys) for node in root.children) == 100_000
    assert time.perf_counter() - start < 10
