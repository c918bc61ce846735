"""Every output of every block, with texts that nobody meant well: lines fit, nothing acts, elements are closed."""

from __future__ import annotations

import re
import unicodedata

from console import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from test_notebook import Elements

from ckptool.commands.checks.finding import Finding, Place
from ckptool.core.checkpoint import Note
from ckptool.core.plan import Problem
from ckptool.report import html, markdown
from ckptool.report.blocks import (
    Block,
    Chart,
    Code,
    Column,
    Facts,
    Findings,
    Item,
    Items,
    Next,
    Notes,
    Rows,
    Series,
    Side,
    Sides,
    Totals,
)
from ckptool.report.cells import Cell, Row
from ckptool.report.document import Answer, Document, Field, Table
from ckptool.report.escape import terminal
from ckptool.report.screen import block_lines, document_lines
from ckptool.report.screen import encode_document as encode_text
from ckptool.report.text import Screen, paint

TEXTS = st.one_of(
    st.text(max_size=120),
    st.sampled_from(
        ["layer1.{0,1}.*", "<b>&\"'`|", "\x1b[2J", "::error::x", "a\nb", "重み.weight", "x" * 300, "``` \\ |"]
    ),
)
FEW = st.lists(TEXTS, max_size=4).map(tuple)
NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
COUNTS = st.integers(0, 10**12)
VALUES = {
    "text": TEXTS,
    "key": st.one_of(TEXTS, st.lists(TEXTS, min_size=1, max_size=4).map(tuple)),
    "code": TEXTS,
    "spec": st.sampled_from(["f32[64]", "bf16[]", "i64[2,3]", "f8_e4m3fn[1]", "odd"]),
    "mark": st.sampled_from(list("=~!>*+-?")),
    "whole": COUNTS,
    "count": COUNTS,
    "bytes": st.one_of(COUNTS, st.tuples(COUNTS, st.one_of(st.none(), COUNTS))),
    "share": st.floats(0, 1),
    "real": NUMBERS,
    "signed": NUMBERS,
    "rel": NUMBERS,
    "small": NUMBERS,
    "levels": st.lists(st.floats(0), max_size=60),
    "hist": st.lists(st.integers(0, 1000), min_size=24, max_size=24),
}


@st.composite
def tables(draw: st.DrawFn) -> Rows:
    kinds = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=6))
    columns = tuple(
        Column(f"c{at}", kind, least=8 if kind in ("text", "key", "code") else None, wide=draw(st.booleans()))  # type: ignore[arg-type]
        for at, kind in enumerate(kinds)
    )
    row = st.tuples(*(st.one_of(st.none(), VALUES[kind], VALUES[kind].map(Cell)) for kind in kinds))
    rows = [Row(values, draw(st.sampled_from(["", "dim"]))) for values in draw(st.lists(row, max_size=5))]
    return Rows(columns, lambda: rows, title=draw(st.sampled_from(["", "4 tensors"])))


@st.composite
def charts(draw: st.DrawFn) -> Chart:
    keys = draw(st.lists(TEXTS, max_size=6).map(tuple))
    values = draw(st.lists(st.one_of(st.none(), NUMBERS), min_size=len(keys), max_size=len(keys)).map(tuple))
    return Chart(draw(TEXTS), keys, (Series(draw(TEXTS), values, log=draw(st.booleans())),))


NOTES = st.builds(Note, TEXTS, TEXTS, level=st.sampled_from(["note", "warning"]))
FINDINGS = st.builds(
    Finding, TEXTS, st.sampled_from(["error", "warning"]), TEXTS, TEXTS, FEW, FEW, TEXTS, st.builds(Place, TEXTS)
)
SIDES = st.builds(Side, TEXTS, FEW, st.sampled_from(["", "source", "-"]))
ITEMS = st.builds(Item, st.sampled_from([">", "wrote"]), TEXTS, FEW)
FACTS = st.tuples(st.sampled_from(["tied", "torch"]), FEW)
BLOCKS: st.SearchStrategy[Block] = st.one_of(
    st.builds(Sides, st.lists(SIDES, min_size=1, max_size=3).map(tuple)),
    st.builds(Totals, FEW),
    st.builds(Facts, st.lists(FACTS, max_size=3).map(tuple)),
    st.builds(Notes, st.lists(NOTES, max_size=3)),
    tables(),
    st.builds(Items, st.lists(ITEMS, max_size=3).map(tuple), code=st.booleans()),
    st.builds(Findings, st.lists(FINDINGS, max_size=3).map(tuple)),
    charts(),
    st.builds(Code, TEXTS),
    st.builds(Next, FEW),
)


def document(blocks: list[Block], text: str) -> Document:
    table = Table((Field("key"), Field("status"), Field("sources", "source key", "key")), [(text, "", (text,))])
    return Document(
        "inspect",
        Answer(terminal(text) or "x", "bad"),
        blocks=lambda: blocks,
        table=lambda: table,
        result=lambda: [("text", text)],
        records=lambda: iter(()),
        summary=dict,
        listing=lambda: iter(()),
        problems=(Problem(text, text),),
    )


def shown_only(text: str) -> None:
    """Nothing in it acts on a terminal or hides, and no runner would obey a line of it."""
    kinds = {unicodedata.category(char) for char in text if char != "\n"}
    assert not kinds & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert not any(line.lstrip().startswith("::") or "##[" in line for line in text.splitlines())


@settings(max_examples=80, deadline=None)
@given(st.lists(BLOCKS, max_size=5), TEXTS, st.sampled_from([40, 80, 160]))
def test_text_of_any_blocks(blocks: list[Block], text: str, width: int) -> None:
    screen = Screen(width=width, elide=True)
    made = document(blocks, text)
    shown_only("".join(encode_text(made)))
    lines = [paint(line, screen) for line in document_lines(made, screen)]
    shown_only("\n".join(lines))
    if not any(isinstance(block, Rows | Code | Sides | Next) for block in blocks):  # these have whole lines
        assert all(fits(line, width) for line in lines)


@settings(max_examples=80, deadline=None)
@given(st.lists(BLOCKS, max_size=5), TEXTS)
def test_markdown_of_any_blocks(blocks: list[Block], text: str) -> None:
    made = "".join(markdown.encode_document(document(blocks, text)))
    shown_only(made)
    outside = re.sub(r"(`{3,})python\n.*?\n\1\n|`[^`\n]*`", "", made, flags=re.DOTALL)
    assert set(re.findall(r"<[^>]*>?", outside)) <= {
        *("<code>", "</code>", "<details>", "</details>", "<summary>", "</summary>"),
    }
    assert outside.count("<details>") == outside.count("</details>")
    small = "".join(markdown.encode_document(document(blocks, text), limit=2000))
    assert len(small.encode()) <= 2000


@settings(max_examples=80, deadline=None)
@given(st.lists(BLOCKS, max_size=5), TEXTS)
def test_html_of_any_blocks(blocks: list[Block], text: str) -> None:
    made = document(blocks, text)
    for whole in ("".join(html.encode_document(made)), "".join(html.static_parts(made))):
        assert not Elements(whole).open
        whole.encode("utf-8")


@given(
    st.lists(st.from_regex(r"(/[a-z]{1,30}){1,6}\.pth", fullmatch=True), min_size=2, max_size=2, unique=True),
    st.integers(70, 100),
)
def test_two_sides_look_different(names: list[str], width: int) -> None:
    facts = ("1,234 tensors", "91.4 kB", "torch zip")
    block = Sides((Side(names[0], facts, "-"), Side(names[1], facts, "+")))
    screen = Screen(width=width, elide=True)
    lines = [paint(line, screen) for line in block_lines([block], screen)]
    first, second = ([line[1:] for line in lines if line.startswith(mark)] for mark in "-+")
    assert first != second


def test_two_sides_that_differ_in_the_middle_of_long_paths() -> None:
    folder = "experiments/2026-10-01/resnet50-imagenet-pretraining-warmup-cosine"
    sides = (
        Side(f"{folder}/seed-{seed}/with-a-long-name/checkpoints/last/model.pth", ("a", "b"), "-") for seed in "12"
    )
    screen = Screen(width=80, elide=True)
    first, second = (paint(line, screen) for line in block_lines([Sides(tuple(sides))], screen))
    assert first != second
