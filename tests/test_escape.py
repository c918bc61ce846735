"""Untrusted text in every medium: visible, one line, distinguishable, inert."""

from __future__ import annotations

import ast
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptool.report.escape import LONGEST, html_text, markdown, markdown_code, shorten, terminal
from ckptool.report.text_width import cells, elide

HOSTILE = {
    "csi": "\x1b[31mred\x1b[0m",
    "osc52": "\x1b]52;c;ZXZpbA==\x07",
    "c1": "\x9b31m",
    "backspace": "good\x08\x08\x08\x08evil",
    "cr": "good\revil",
    "newline": "a\n::error::b",
    "bidi": "\u202egnp.exe",
    "isolate": "\u2066x\u2069",
    "zero width": "a\u200bb\ufeff\u00adc",
    "surrogate": "a\udcffb",
    "variation": "a\ufe0fb",
    "hangul filler": "a\u3164b",
    "line separator": "a\u2028b\u2029c",
    "nul": "a\0b",
    "del": "a\x7fb",
    "rich markup": "[/nope][bold]",
    "github": "::set-env name=PATH::x",
    "github indented": "  ::error::x",
    "azure": "x ##[error]y",
    "private use": "\ue000",
    "tags": "a\U000e0041b",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_nothing_in_the_text_acts_on_a_terminal_or_a_log(text: str) -> None:
    shown = terminal(text)
    assert all(unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"} for char in shown)
    assert len(shown.splitlines()) == 1
    assert not shown.lstrip().startswith("::")
    assert "##[" not in shown
    shown.encode("utf-8")


def test_escapes_are_the_ones_people_know() -> None:
    assert terminal("a\x1b[2J\n\t\x9b\u202e\U000e0041") == r"a\x1b[2J\n\t\x9b\u202e\U000e0041"


@pytest.mark.parametrize(
    "text", ["layer1.0.weight", "重み.weight", "é", "re:layer\\d+\\.w", "C:\\dir", "a b", "a::b", "a #1"]
)
def test_ordinary_names_stay_as_they_are(text: str) -> None:
    assert terminal(text) == text


def _read_back(shown: str) -> str:
    """What a person reads: escapes, if there are any, say which character they stand for."""
    if not re.search(r"\\[\\nrtxuU]", shown):
        return shown
    return re.sub(
        r"\\(?:[\\nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})", lambda match: ast.literal_eval(f"'{match[0]}'"), shown
    )


@given(st.text(st.characters(exclude_categories=[]) | st.sampled_from("\\xu\n\x1b0:#[ntr "), max_size=30))
def test_two_names_never_look_the_same(text: str) -> None:
    assert _read_back(terminal(text)) == text


@pytest.mark.parametrize("text", ["a\x1b", "a\\x1b", "a\\\\x1b", "a\\d", "\\", "\\\\", "::", "\\x3a:"])
def test_backslashes_and_escapes_are_told_apart(text: str) -> None:
    assert _read_back(terminal(text)) == text


def test_long_names_are_shortened_in_the_middle() -> None:
    name = "head." + "x" * 100_000 + ".tail"
    shown = terminal(name)
    assert len(shown) == LONGEST
    assert shown.startswith("head.x")
    assert shown.endswith("x.tail")
    assert "…" in shown
    assert shorten("abc", 3) == "abc"


@pytest.mark.parametrize(
    "text", [*HOSTILE.values(), "a|b", "`code`", "[x](http://evil)", "<img src=x>", "*b* _i_", "@me", ""]
)
def test_markdown_has_no_syntax_left(text: str) -> None:
    prose = markdown(text)
    without_entities = re.sub(r"&#\d+;", "", prose)
    assert not set(without_entities) & set("|`[]<>*_@\\#!~&\n")
    code = markdown_code(text)
    assert "\n" not in code
    if code.startswith("`"):
        assert not set(code[1:-1]) & set("`|\\\n")
    else:
        assert code == f"<code>{prose}</code>"


def test_html_has_no_tags_left() -> None:
    assert html_text("<script>\"'&\x00") == "&lt;script&gt;&quot;&#x27;&amp;\\x00"


@pytest.mark.parametrize(("text", "width"), [("abc", 3), ("重み", 4), ("e\u0301", 1), ("", 0), ("ａ", 2), ("…", 1)])
def test_cells_count_terminal_columns(text: str, width: int) -> None:
    assert cells(text) == width


@given(st.text(st.sampled_from("ab.重み\u0301é"), max_size=40), st.integers(1, 20))
def test_elided_text_fits_and_keeps_both_ends(text: str, width: int) -> None:
    shown = elide(text, width)
    assert cells(shown) <= width
    if cells(text) <= width:
        assert shown == text
    else:
        head, tail = shown.split("…")
        assert text.startswith(head)
        assert text.endswith(tail)
