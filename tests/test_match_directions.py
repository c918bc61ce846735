"""Which way round matrices are: told by names, biases, classes and the other matrices of the same blocks."""

from __future__ import annotations

import pytest
from test_match import given, linear, specs

from ckptool.matching.match import match
from ckptool.matching.result import Confidence

Rows = list[tuple[str, tuple[int, ...]]]

_TURNED = {2: "i o", 3: "w i o", 4: "h w i o", 5: "d h w i o"}
_PLAIN = {2: "o i", 3: "o i w", 4: "o i h w", 5: "o i d h w"}


def layouts(source: Rows, target: Rows, **kwargs: dict[str, str]) -> dict[str, str]:
    """What is done with the axes of what is accepted."""
    return {pair.targets[0]: pair.layout for pair in match(specs(source), specs(target), **kwargs).accepted()}


@pytest.mark.parametrize("rank", [2, 3, 4, 5])
@pytest.mark.parametrize("outputs", [8, 16], ids=["square", "oblong"])
def test_kernels_of_tensorflow_both_ways(rank: int, outputs: int) -> None:
    space = (3, 3, 3)[: rank - 2]
    names = ("stem", "mid", "last")
    torch: Rows = [(f"{name}.weight", (outputs + at, 8 + at, *space)) for at, name in enumerate(names)]
    flax: Rows = [(f"{name}.kernel", (*space, 8 + at, outputs + at)) for at, name in enumerate(names)]
    there = f"{_PLAIN[rank]} -> {_TURNED[rank]}"
    back = f"{_TURNED[rank]} -> {_PLAIN[rank]}"
    assert layouts(torch, flax) == {f"{name}.kernel": there for name in names}
    assert layouts(flax, torch) == {f"{name}.weight": back for name in names}


@pytest.mark.parametrize(
    ("name", "shape", "axes"),
    [("kernel", (3, 3, 1, 8), "h w i o"), ("depthwise_kernel", (3, 3, 8, 1), "h w o i")],
)
def test_kernels_of_each_channel(name: str, shape: tuple[int, ...], axes: str) -> None:
    torch: Rows = [("dw.weight", (8, 1, 3, 3)), *linear("head.fc", 4, 8)]
    keras: Rows = [(f"dw.{name}", shape), ("head.fc.kernel", (8, 4)), ("head.fc.bias", (4,))]
    assert layouts(keras, torch)["dw.weight"] == f"{axes} -> o i h w"
    assert layouts(torch, keras)[f"dw.{name}"] == f"o i h w -> {axes}"


def attention(turned: bool, prefix: str = "layers.", biased: str = "") -> Rows:
    """Two blocks without biases, but for some, whose matrices are all stored one way."""
    rows: Rows = []
    for at in range(2):
        for name, outputs, inputs in [*((f"attn.{x}", 8, 8) for x in "qkvo"), ("mlp.fc1", 32, 8), ("mlp.fc2", 8, 32)]:
            rows.append((f"{prefix}{at}.{name}.weight", (inputs, outputs) if turned else (outputs, inputs)))
            if biased and biased in name:
                rows.append((f"{prefix}{at}.{name}.bias", (outputs,)))
    return rows


@pytest.mark.parametrize("prefix", ["layers.", "model.h."])
@pytest.mark.parametrize("biased", ["", "mlp"])
def test_square_matrices_turn_with_their_block(prefix: str, biased: str) -> None:
    for turned in (False, True):
        found = layouts(attention(turned, biased=biased), attention(not turned, prefix, biased))
        weights = {key: layout for key, layout in found.items() if key.endswith("weight")}
        assert len(weights) == 12 and set(weights.values()) <= {"o i -> i o", "i o -> o i"}
        assert {layout for key, layout in found.items() if key.endswith("bias")} <= {""}


@pytest.mark.parametrize("turned", [False, True])
def test_square_matrices_stay_with_their_block(turned: bool) -> None:
    assert set(layouts(attention(turned), attention(turned, "h.")).values()) == {""}
    assert set(layouts(attention(turned, biased="mlp"), attention(turned, "h.")).values()) == {""}


def test_square_matrices_of_a_block_that_contradicts_itself() -> None:
    """One of its oblong matrices has turned, the other has not: the square ones may have."""
    target = [(key, shape[::-1] if "fc1" in key else shape) for key, shape in attention(False)]
    found = layouts(attention(False), target)
    assert not [key for key in found if ".attn." in key]


def test_tables_of_embeddings_do_not_turn() -> None:
    source = [("embed_tokens.weight", (8, 8)), ("pos_embed.weight", (8, 8)), *attention(False)]
    target = [("embed_tokens.weight", (8, 8)), ("pos_embed.weight", (8, 8)), *attention(True)]
    found = layouts(source, target)
    assert (found["embed_tokens.weight"], found["pos_embed.weight"]) == ("", "")


# ---------------------------------------------------------------------------------------------- classes of a model


def modules(rows: Rows, name: str) -> dict[str, str]:
    return {key.rpartition(".")[0]: name for key, _ in rows}


def test_a_conv1d_has_its_inputs_first_even_where_all_is_square() -> None:
    rows = [row for at in range(2) for name in ("q", "k", "v") for row in linear(f"h.{at}.{name}", 8, 8)]
    conv1d, plain = modules(rows, "Conv1D"), modules(rows, "Linear")
    turned = layouts(rows, rows, source_modules=plain, target_modules=conv1d)
    assert {key.rpartition(".")[2]: layout for key, layout in turned.items()} == {"weight": "o i -> i o", "bias": ""}
    assert set(layouts(rows, rows, source_modules=conv1d, target_modules=conv1d).values()) == {""}


@pytest.mark.parametrize("turned", [False, True])
def test_the_oblong_matrices_of_a_file_say_what_its_square_ones_are_to_a_model(turned: bool) -> None:
    target = attention(True)
    found = layouts(attention(turned), target, target_modules=modules(target, "Conv1D"))
    assert len(found) == len(target)
    assert set(found.values()) == ({""} if turned else {"o i -> i o"})


def test_a_norm_is_no_embedding() -> None:
    """Known classes speak, those that nobody knows do not, and none of them against a name that is the same."""
    source = [("a.norm.weight", (1, 8)), *linear("a.fc", 4, 8)]
    target = [("a.ln.weight", (1, 8)), *linear("a.fc", 4, 8)]
    for name, known in (("Embedding", False), ("Linear", False), ("LayerNorm", True), ("Quantizer", True)):
        found = given(match(specs(source), specs(target), target_modules={"a.ln": name, "a.fc": "Linear"}))
        assert ("a.ln.weight" in found) is known, name
    both = {"source_modules": {"a.norm": "BatchNorm2d"}, "target_modules": {"a.ln": "Linear"}}
    assert "a.ln.weight" not in {
        key for pair in match(specs(source), specs(target), **both).accepted(Confidence.GUESS) for key in pair.targets
    }
    assert len(given(match(specs(source), specs(source), target_modules={"a.norm": "Embedding"}))) == 3


def test_squares_outside_of_the_blocks_where_both_ways_are_found() -> None:
    """The head stays, the blocks turn: nothing says what the square layer between them does."""
    source = [*attention(False), ("merger.proj_in.weight", (8, 8)), ("lm_head.weight", (50, 8))]
    target = [*attention(True), ("merger.proj_in.weight", (8, 8)), ("lm_head.weight", (50, 8))]
    found = layouts(source, target)
    assert "merger.proj_in.weight" not in found and found["lm_head.weight"] == ""
    assert found["layers.0.attn.q.weight"] == "o i -> i o"
