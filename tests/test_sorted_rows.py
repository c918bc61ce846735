"""Rows by bisection are what a dict says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ckptool.core.columns import ColumnSpecs
from ckptool.core.sorted_rows import SortedRows
from ckptool.core.spec import Form


@given(keys=st.lists(st.text(max_size=4), unique=True, max_size=20), asked=st.text(max_size=4))
def test_sorted_rows_are_the_rows_of_a_dict(keys: list[str], asked: str) -> None:
    known = {key: row for row, key in enumerate(keys)}
    rows = SortedRows(keys)
    assert rows == known
    assert (asked in rows, rows.get(asked, -1)) == (asked in known, known.get(asked, -1))
    assert 3 not in rows  # type: ignore[comparison-overlap]
    specs = ColumnSpecs(keys, [Form("int8", (row,), row) for row in range(len(keys))])
    assert dict(specs.sorted()) == dict(specs)
    assert specs.sorted().get(asked) == specs.get(asked)
