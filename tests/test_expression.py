from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptool.core.errors import PlanError, UsageError
from ckptool.core.ops import Cast, Normal, made, parse_cast
from ckptool.core.spec import TensorSpec
from ckptool.recipes.expression import Compute, Expression

Array = np.ndarray[Any, Any]


def op_of(text: str, *args: Array, **variables: float) -> tuple[Compute, list[Array]]:
    specs = [TensorSpec(f"t{at}", arg.dtype.name, arg.shape) for at, arg in enumerate(args)]
    ((op, used),) = Expression.parse(text).ops(specs, variables)
    return op, [args[at] for at in used]


def value(text: str, *args: Array, **variables: float) -> Array:
    op, used = op_of(text, *args, **variables)
    found = op.compute(used)
    assert (found.shape, found.dtype.name) == (op.shape, op.dtype)
    return found


X = np.linspace(-2, 2, 12, dtype="f4").reshape(3, 4)


def test_lora_and_weight_norm() -> None:
    a, b = np.ones((2, 4), "f4"), np.full((3, 2), 0.5, "f4")
    assert np.allclose(value("$1 + (alpha / r) * $3 @ $2", X, a, b, alpha=8, r=2), X + 4 * (b @ a))
    g, v = np.array([[2], [3], [4]], "f4"), X + 3
    expected = g * v / np.sqrt((v**2).sum(1, keepdims=True))
    assert np.allclose(value("$1 * $2 / norm($2, 1)", g, v), expected)
    assert np.allclose(value("$1 * $2 / norm($2, keep=0)", g, v), expected)


def test_functions() -> None:
    assert value("mean($1)", X).shape == ()
    assert np.allclose(value("mean($1, 0)", X), X.mean(0, keepdims=True))
    assert np.allclose(value("sum($1, 0, keepdims=0)", X), X.sum(0))
    assert np.allclose(value("max($1, -1) - min($1, -1)", X), np.ptp(X, axis=1, keepdims=True))
    assert np.allclose(value("exp(log(abs($1) + 1)) - sqrt($1 ** 2)", X), 1)
    assert np.array_equal(value("flip($1, 1)", X), X[:, ::-1])
    assert np.array_equal(value("transpose($1)", X), X.T)
    assert np.array_equal(value("transpose($1, 1, 0)", X), X.T)
    assert np.array_equal(value("take($1, [2, 0, -1], 1)", X), X[:, [2, 0, -1]])
    assert np.array_equal(value("clip($1, -1, 1)", X), X.clip(-1, 1))
    assert not value("zeros_like($1)", X).any()
    assert value("ones_like($1)", X).all()


def test_dtypes() -> None:
    import ml_dtypes

    half = X.astype(ml_dtypes.bfloat16)
    assert value("$1 + 1", half).dtype == ml_dtypes.bfloat16
    assert value("$1 * $2", half, X).dtype == ml_dtypes.bfloat16
    assert value("$2 * $1", half, X).dtype == ml_dtypes.bfloat16  # that of $1, wherever it stands
    assert value("float32($1)", half).dtype == np.float32
    assert value("int64(0)").dtype == np.int64
    assert value("int64(0)").shape == ()
    assert value("bf16($1 + 1)", X).dtype == ml_dtypes.bfloat16
    assert value("$1 + 1", np.array(3)).dtype == np.int64
    assert np.array_equal(value("1 - $1", np.array([True, False])), [False, True])


def test_half_types_are_computed_in_float32() -> None:
    import ml_dtypes

    small = np.full(3000, 1.0, ml_dtypes.bfloat16)
    assert float(value("sum($1)", small)) == pytest.approx(3000, rel=0.005)  # summed in bfloat16 it would stop at 256
    assert value("($1 + 0.001) - 1", small)[0] == ml_dtypes.bfloat16(np.float32(1) + np.float32(0.001) - np.float32(1))


def test_elementwise_is_known_from_shapes() -> None:
    assert op_of("$1 - 1e-5", X)[0].is_elementwise
    assert op_of("0.5 * $1 + 0.5 * $2", X, X)[0].is_elementwise
    assert not op_of("$1 * $2", X, X[:, :1])[0].is_elementwise
    assert not op_of("$1 / norm($1)", X)[0].is_elementwise
    assert not op_of("flip($1, 0)", X)[0].is_elementwise
    op, _ = op_of("$1 * 2 + ones_like($1)", X)
    assert np.array_equal(op.compute([X.reshape(-1)[3:7]]), (X * 2 + 1).reshape(-1)[3:7])


@settings(max_examples=60, deadline=None)
@given(st.recursive(
    st.sampled_from(["$1", "$2", "a", "2", "0.5"]),
    lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
    max_leaves=8,
))  # fmt: skip
def test_arithmetic_is_numpys(text: str) -> None:
    x, y = X, X[::-1] * 0.25
    if "$" not in text:
        text = f"{text} + $1"
    expected = eval(text.replace("$1", "x").replace("$2", "y"), {"x": x, "y": y, "a": 3})
    assert np.allclose(value(text, x, y, a=3), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "$1.__class__",
        "(lambda: 1)()",
        "[x for x in $1]",
        "$1 if $1 else $2",
        "'text'",
        "$1 and $2",
        "open($1)",
        "sum()",
        "sum($1, where=1)",
        "$1 == $2",
        "$1[0]",
        "True",
        "f'{1}'",
        "",
        "$1 +",
        "_1",
        "$0",
        "$",
        "(" * 300 + "1" + ")" * 300,
        "-" * 1900 + "1",
        "1+" * 2000 + "1",
    ],
)
def test_what_is_not_arithmetic_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Expression.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("$1 + $2", r"\[3, 4\] against \[2, 2\]"),
        ("$1 @ $2", "@"),
        ("$1 * beta", "needs a value for beta"),
        ("3", "has no dtype"),
        ("mean($1, 5)", "there is no axis 5"),
        ("take($1, [9], 0)", "places that exist"),
        ("$1 * 9.0 ** 9 ** 9", "does not fit"),
        ("$1 / (1 - 1)", "does not fit"),
    ],
)
def test_what_does_not_fit_is_said_on_headers(text: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        op_of(text, X, np.zeros((2, 2), "f4"))


def test_several_outputs_and_inverses() -> None:
    expression = Expression.parse("$1, int64(0)")
    assert expression.outputs == ("$1", "int64(0)")
    assert Expression.parse("$1 - 1e-5 <= $1 + 1e-5").inverse().outputs == ("$1 + 1e-5",)
    with pytest.raises(UsageError, match="no inverse"):
        Expression.parse("$1 - 1e-5").inverse()
    with pytest.raises(UsageError, match="two inverses"):
        Expression.parse("$1 <= $1 <= $1")


def test_casts_round_like_torch_and_leave_counters_alone() -> None:
    import ml_dtypes
    import torch

    x = np.random.default_rng(0).standard_normal(1000).astype("f4")
    for short, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16), ("f64", torch.float64)):
        cast = parse_cast(short)
        assert cast is not None
        expected = torch.from_numpy(x).to(dtype).to(torch.float64).numpy()
        assert np.array_equal(cast.compute([x]).astype("f8"), expected)
    counter = np.array(7)
    assert Cast("bfloat16").compute([counter]) is counter
    assert Cast("int64").compute([np.array([1.7], "f4")]).tolist() == [1]
    assert Cast("float32").compute([x.astype(ml_dtypes.bfloat16)]).dtype == np.float32
    assert parse_cast("f33") is None


def test_made_from_nothing() -> None:
    spec = TensorSpec("classifier.weight", "bfloat16", (300, 200))
    normal = made("normal(0.001)", spec)
    assert isinstance(normal, Normal)
    array = normal.compute([])
    assert array.shape == (300, 200)
    assert array.dtype.name == "bfloat16"
    assert array.astype("f8").std() == pytest.approx(0.001, rel=0.02)
    assert array.tobytes() == normal.compute([]).tobytes()
    other = made("normal(0.001)", TensorSpec("other.weight", "bfloat16", (300, 200)))
    assert other is not None
    assert other.compute([]).tobytes() != array.tobytes()
    ones = made("ones", spec)
    assert ones is not None
    assert ones.compute([]).astype("f4").min() == 1
    assert made("keep", spec) is None
    for wrong in ("normal", "normal(x)", "normal(-1)", "uniform(1)"):
        with pytest.raises(UsageError, match="unknown init"):
            made(wrong, spec)
