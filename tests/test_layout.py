from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptool.core.errors import CkptError, PlanError, UsageError
from ckptool.core.spec import TensorSpec
from ckptool.recipes.axes import solve
from ckptool.recipes.layout import Layout
from ckptool.recipes.rearrange import Members, Rearrange, pieces, stack

Array = np.ndarray[Any, Any]


def ops(text: str, *shapes: tuple[int, ...], **known: int) -> list[Rearrange]:
    """The ops of a layout on tensors that are not spread."""
    layout = Layout.parse(text)
    left, right = [()] * len(layout.left), [()] * len(layout.right)
    layout.check(left, right)
    return [piece.op for piece in pieces(layout, [{(): shape} for shape in shapes], left, right, known)]


def move(text: str, *arrays: Array, **known: int) -> list[Array]:
    layout = Layout.parse(text)
    left, right = [()] * len(layout.left), [()] * len(layout.right)
    layout.check(left, right)
    found = pieces(layout, [{(): array.shape} for array in arrays], left, right, known)
    results = []
    for piece in found:
        args = [arrays[number] for number, _ in piece.args]
        array = piece.op.compute(args)
        assert array.shape == piece.op.shape
        assert_runs(piece.op, args, array)
        results.append(array)
    return results


def assert_runs(op: Rearrange, args: list[Array], expected: Array) -> None:
    """If the op says that it is runs of bytes, those bytes are the result."""
    runs = op.runs([TensorSpec(str(at), arg.dtype.name, arg.shape) for at, arg in enumerate(args)])
    if runs is not None:
        packed = [np.ascontiguousarray(arg).tobytes() for arg in args]
        assert b"".join(packed[run.arg][run.offset : run.offset + run.nbytes] for run in runs) == expected.tobytes()


def counted(*shape: int, dtype: str = "float32") -> Array:
    return np.arange(math.prod(shape), dtype=dtype).reshape(shape)


def test_rope_permutation_is_what_the_scripts_do() -> None:
    w = counted(64, 8)
    (found,) = move("(h d two) i -> (h two d) i", w, h=4, two=2)
    assert np.array_equal(found, w.reshape(4, 8, 2, 8).transpose(0, 2, 1, 3).reshape(64, 8))
    assert np.array_equal(move("(h two d) i -> (h d two) i", found, h=4, two=2)[0], w)


def test_transposes_reshapes_and_unit_axes() -> None:
    w = counted(6, 4)
    assert np.array_equal(move("i o -> o i", w)[0], w.T)
    assert np.array_equal(move("o i -> o i 1 1", w)[0], w[:, :, None, None])
    assert np.array_equal(move("c 1 1 -> c", counted(5, 1, 1))[0], np.arange(5))
    assert np.array_equal(move("h w i o -> o i h w", counted(3, 3, 2, 4))[0], counted(3, 3, 2, 4).transpose(3, 2, 0, 1))
    assert np.array_equal(move("(a b) c -> a (b c)", w, a=2)[0], w.reshape(2, 12))
    assert np.array_equal(move("a ... -> ... a", counted(2, 3, 4))[0], np.moveaxis(counted(2, 3, 4), 0, -1))
    assert np.array_equal(move("... -> ...", np.float32(3).reshape(()))[0], np.float32(3))


def test_concatenation_and_split() -> None:
    a, b = counted(2, 3), counted(4, 3) + 100
    (both,) = move("o i, p i -> (o + p) i", a, b)
    assert np.array_equal(both, np.concatenate([a, b]))
    back = move("(o + p) i -> o i, p i", both, o=2)
    assert np.array_equal(back[0], a)
    assert np.array_equal(back[1], b)
    assert np.array_equal(move("o i, o j -> o (i + j)", a, a + 50)[0], np.concatenate([a, a + 50], axis=1))
    x, y = move("(i + n) -> i, n", counted(8))  # nothing says how long: halves
    assert np.array_equal(x, np.arange(4))
    assert np.array_equal(y, np.arange(4, 8))


def test_interleaving_and_group_wise_fusion() -> None:
    q, k, v = counted(4, 3), counted(2, 3) + 20, counted(2, 3) + 40
    (fused,) = move("(g r) i, (g k) i, (g v) i -> (g (r + k + v)) i", q, k, v, g=2)
    rows = [row for g in range(2) for row in (*q[2 * g : 2 * g + 2], k[g], v[g])]
    assert np.array_equal(fused, np.stack(rows))
    gate, up = counted(3, 2), counted(3, 2) + 10
    (mixed,) = move("(o a) i, (o b) i -> (o (a + b)) i", gate, up, a=1, b=1)
    assert np.array_equal(mixed[0::2], gate)
    assert np.array_equal(mixed[1::2], up)


def test_channels_rows_and_padding() -> None:
    w = counted(2, 6, 1, 1)
    assert np.array_equal(move("o (r + g + b) h w -> o (b + g + r) h w", w)[0], w[:, [4, 5, 2, 3, 0, 1]])
    head = counted(5, 3)
    assert np.array_equal(move("(1 + n) i -> n i", head)[0], head[1:])
    assert np.array_equal(move("(bg + n) i -> (n + bg) i", head, bg=1)[0], np.roll(head, -1, axis=0))
    assert np.array_equal(move("(1 + n) i -> (n + 1) i", head)[0], np.roll(head, -1, axis=0))
    assert np.array_equal(move("(_ + n) -> n", counted(6), n=2)[0], [4, 5])
    (padded,) = move("v d -> (v + 7) d", head)
    assert np.array_equal(padded[:5], head)
    assert not padded[5:].any()
    assert np.array_equal(move("(v + 7) d -> v d", padded)[0], head)


def test_swin_merging_is_unfold_order() -> None:
    w = counted(8, 16)
    (found,) = move("o (w h c) -> o (c h w)", w, w=2, h=2)
    expected = w.reshape(8, 4, 4)[:, [0, 2, 1, 3]].transpose(0, 2, 1).reshape(8, 16)  # mmsegmentation's swin2mmseg
    assert np.array_equal(found, expected)


def test_a_name_on_the_right_only_repeats() -> None:
    assert np.array_equal(move("c -> (c k)", counted(3), k=2)[0], np.repeat(np.arange(3), 2))
    assert np.array_equal(move("c -> (3 c)", counted(2))[0], np.tile(np.arange(2), 3))
    assert np.array_equal(move("a b -> a t b", counted(2, 3), t=2)[0], np.stack([counted(2, 3)] * 2, axis=1))


def test_stacking_and_unbinding_over_captures() -> None:
    layout = Layout.parse("o i, p i -> e (o + p) i")
    members: list[Members] = [{(e,): (2, 3) for e in range(11)}, {(e,): (4, 3) for e in range(11)}]
    layout.check([("e",), ("e",)], [()])
    (piece,) = pieces(layout, members, [("e",), ("e",)], [()], {"e": 11})
    arrays = {
        (number, place): counted(*shape) + 1000 * number + 100 * place[0]
        for number, found in enumerate(members)
        for place, shape in found.items()
    }
    args = [arrays[arg] for arg in piece.args]
    fused = piece.op.compute(args)
    expected = np.stack([np.concatenate([arrays[0, (e,)], arrays[1, (e,)]]) for e in range(11)])
    assert np.array_equal(fused, expected)
    assert_runs(piece.op, args, fused)
    runs = piece.op.runs([TensorSpec("", "float32", arg.shape) for arg in args])
    assert runs is not None
    assert len(runs) == 22  # one run for each expert and half: the kernel copies it

    back = layout.inverse({"e"})
    parts = pieces(back, [{(): fused.shape}], [()], [("e",), ("e",)], {"o": 2})
    assert len(parts) == 22
    for part in parts:
        assert np.array_equal(part.op.compute([fused]), arrays[part.tensor, part.place])


def test_stack_op() -> None:
    op = stack({(0,): (2, 3), (1,): (2, 3)})
    assert np.array_equal(op.compute([counted(2, 3), counted(2, 3) + 9]), np.stack([counted(2, 3), counted(2, 3) + 9]))


def test_views_are_not_copied_and_half_types_work() -> None:
    import ml_dtypes

    w = counted(6, 4).astype(ml_dtypes.bfloat16)
    (found,) = move("i o -> o i", w)
    assert np.shares_memory(found, w)
    assert np.array_equal(found.astype("f4"), w.T.astype("f4"))
    (cut,) = move("(1 + n) i -> n i", w.astype(ml_dtypes.float8_e4m3fn))
    assert cut.dtype == ml_dtypes.float8_e4m3fn


def test_runs_are_given_where_the_kernel_can_copy() -> None:
    def runs(text: str, *shapes: tuple[int, ...], **known: int) -> list[int | None]:
        found = []
        for op in ops(text, *shapes, **known):
            rows = op.runs([TensorSpec("", "bfloat16", shape) for shape in op.arg_shapes])
            found.append(None if rows is None else len(rows))
        return found

    assert runs("(q + k + v) i -> q i, k i, v i", (3072, 1024)) == [1, 1, 1]
    assert runs("o i, p i -> (o + p) i", (1024, 1024), (1024, 1024)) == [2]
    assert runs("o i, o j -> o (i + j)", (256, 4096), (256, 4096)) == [512]
    assert runs("o i, o j -> o (i + j)", (4096, 16), (4096, 16)) == [None]  # 32 bytes at a time: compute
    assert runs("(a b) -> a b", (4096,), a=2) == [1]
    assert runs("i o -> o i", (1024, 1024)) == [None]
    assert runs("v d -> (v + 7) d", (64, 64)) == [None]


def test_packed_types_and_mixed_types_are_refused() -> None:
    (op,) = ops("i o -> o i", (4, 6))
    with pytest.raises(PlanError, match="packed"):
        op.result([TensorSpec("w", "float4_e2m1fn", (4, 6))])
    (join,) = ops("i, j -> (i + j)", (4,), (4,))
    with pytest.raises(PlanError, match="bfloat16 and float32 cannot be joined"):
        join.result([TensorSpec("a", "float32", (4,)), TensorSpec("b", "bfloat16", (4,))])


@pytest.mark.parametrize(
    ("text", "shapes", "known", "message"),
    [
        ("(h d) i -> h d i", [(30, 4)], {"h": 4}, "h d = 30 with h = 4 has no whole solution"),
        ("(r d) -> r d", [(12,)], {}, "r d = 12 does not determine r, d"),
        ("(h (k + v)) -> h k, h v", [(12,)], {}, "h (k + v) = 12 does not determine h, k, v"),
        ("(r + g + b) -> r, g, b", [(8,)], {}, "cannot be split into 3 equal parts"),
        ("o i, o j -> o (i + j)", [(2, 3), (4, 3)], {}, "o = 4 with o = 2 does not hold"),
        ("o i -> o i", [(2, 3, 4)], {}, "has 2 axes, the tensor has"),
        ("c -> (c k)", [(3,)], {}, "nothing says how long k is"),
        ("(1 + n) -> n", [(0,)], {}, "no whole solution"),
    ],
)
def test_sizes_that_cannot_be_solved_print_their_equation(
    text: str, shapes: list[tuple[int, ...]], known: dict[str, int], message: str
) -> None:
    with pytest.raises(CkptError, match=re.escape(message)):
        ops(text, *shapes, **known)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_a_tensor_is_cut_where_the_targets_parts_are_as_long_as_it(whole: int, first: int, second: int) -> None:
    layout = Layout.parse("(i + n) -> i, n")

    def sizes() -> dict[str, int]:
        return solve(layout.left, layout.right, [(whole,)], {}, [(first,), (second,)])

    if first + second == whole:
        assert sizes() == {"i": first, "n": second}
    else:
        with pytest.raises(PlanError, match=r"no whole solution|in the model"):
            sizes()


@pytest.mark.parametrize(
    "text",
    [
        "a b -> a",
        "a -> a b c ->",
        "(a b -> a b",
        "a b) -> a b",
        "_ n -> n",
        "a a -> a",
        "(2 a) -> a",
        "a, a -> a",
        "(a + ) -> a",
        "a ; b -> a b",
        "n -> (_ + n)",
        "(... a) -> a",
        "a b",
    ],
)
def test_malformed_layouts(text: str) -> None:
    with pytest.raises(UsageError):
        layout = Layout.parse(text)
        layout.check([()] * len(layout.left), [()] * len(layout.right))


def test_the_caret_points_at_the_place() -> None:
    with pytest.raises(UsageError) as info:
        Layout.parse("a ; b -> a b")
    text, caret = info.value.detail
    assert text[caret.index("^")] == ";"


@pytest.mark.parametrize("text", ["(_ + n) -> n", "(1 + n) i -> n i", "c -> (c k)"])
def test_what_is_thrown_away_or_repeated_has_no_inverse(text: str) -> None:
    with pytest.raises(UsageError, match=r"throws|repeats"):
        Layout.parse(text).inverse()


# ---------------------------------------------------------------------------------------------- any permutation


@st.composite
def permutations(draw: st.DrawFn) -> tuple[str, dict[str, int], tuple[int, ...], list[str], list[str]]:
    """A layout of up to five axes, grouped at random on both sides, in any order."""
    axes = list("abcde")[: draw(st.integers(1, 5))]
    sizes = {axis: draw(st.integers(1, 4)) for axis in axes}
    right = draw(st.permutations(axes))

    def side(order: list[str]) -> tuple[str, tuple[int, ...]]:
        groups, shape = [], []
        rest = list(order)
        while rest:
            count = draw(st.integers(1, len(rest)))
            group, rest = rest[:count], rest[count:]
            groups.append(f"({' '.join(group)})" if count > 1 else group[0])
            shape.append(math.prod(sizes[axis] for axis in group))
        return " ".join(groups), tuple(shape)

    left_text, shape = side(axes)
    right_text, _ = side(list(right))
    return f"{left_text} -> {right_text}", sizes, shape, axes, list(right)


@settings(max_examples=150, deadline=None)
@given(permutations(), st.sampled_from(["float32", "int64", "uint8"]))
def test_any_permutation_is_numpys_and_comes_back(
    case: tuple[str, dict[str, int], tuple[int, ...], list[str], list[str]], dtype: str
) -> None:
    text, sizes, shape, left, right = case
    x = counted(*shape, dtype=dtype)
    (found,) = move(text, x, **sizes)
    expected = x.reshape([sizes[axis] for axis in left]).transpose([left.index(axis) for axis in right])
    assert np.array_equal(found.reshape(-1), expected.reshape(-1))
    (back,) = move(str(Layout.parse(text).inverse()), found, **sizes)
    assert np.array_equal(back, x)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=2, max_size=4),
    st.integers(0, 2),
    st.lists(st.integers(1, 3), min_size=2, max_size=2),
    st.randoms(use_true_random=False),
)
def test_any_concatenation_is_numpys_and_comes_back(
    lengths: list[int], axis: int, others: list[int], random: Any
) -> None:
    """Blocks along any axis, taken apart in another order."""
    names = list("abcd")[: len(lengths)]
    rest = ["x", "y"]

    def tensor(middle: str) -> str:
        return " ".join([*rest[:axis], middle, *rest[axis:]])

    shapes = [(*others[:axis], length, *others[axis:]) for length in lengths]
    arrays = [counted(*shape) + 1000 * at for at, shape in enumerate(shapes)]
    order = random.sample(range(len(names)), len(names))
    text = f"{', '.join(map(tensor, names))} -> {tensor('(' + ' + '.join(names[at] for at in order) + ')')}"
    (joined,) = move(text, *arrays)
    assert np.array_equal(joined, np.concatenate([arrays[at] for at in order], axis=axis))
    parts = move(str(Layout.parse(text).inverse()), joined, **dict(zip(names, lengths, strict=True)))
    for part, array in itertools.zip_longest(parts, arrays):
        assert np.array_equal(part, array)
