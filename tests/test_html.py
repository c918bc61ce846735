"""The page: what it is made of, and what happens in a browser that opens it and clicks through it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, browser, chromium
from conftest import FIXTURES
from reports import CLEAN, FINDINGS, HOSTILE, REPORT, hostile_report

import ckptool
from ckptool.commands.diff.comparison import compare
from ckptool.commands.diff.result import Change, Changes, Diff, ExtraChange, Status
from ckptool.core.checkpoint import Checkpoint, Extra, Note, Selection
from ckptool.core.format import Format
from ckptool.core.spec import TensorSpec
from ckptool.core.tensor import Tensor
from ckptool.facts.storages import ties
from ckptool.report.document import Answer, Document, Field, Table
from ckptool.report.document_check import check_document
from ckptool.report.document_diff import diff_document
from ckptool.report.document_inspect import inspect_document
from ckptool.report.html import encode_document
from ckptool.report.inspection import Inspection
from ckptool.values.delta import Delta
from ckptool.values.stats import all_stats


def inspection(path: Path, stats: bool = True) -> Inspection:
    checkpoint = ckptool.open(path)
    keys = tuple(checkpoint)
    return Inspection(
        checkpoint, path.name, keys, tuple(ties(checkpoint)), stats=all_stats(checkpoint, keys) if stats else {}
    )


def page_of(document: Document) -> str:
    return "".join(encode_document(document))


def inspected() -> str:
    return page_of(inspect_document(inspection(FIXTURES / "resnet18.pth")))


def compared() -> str:
    diff = compare(ckptool.open(FIXTURES / "resnet18.pth"), ckptool.open(FIXTURES / "tuned.safetensors"))
    return page_of(diff_document(diff, ("resnet18.pth", "tuned.safetensors")))


def checked() -> str:
    return page_of(check_document(REPORT))


def transplanted() -> str:
    from ckptool.commands.transplant.planning import plan_transplant
    from ckptool.models import open_target
    from ckptool.report.document_transplant import transplant_document

    target = open_target(str(FIXTURES / "resnet18.pth"))
    plan = plan_transplant(ckptool.open(FIXTURES / "tuned.safetensors"), target)
    return page_of(transplant_document(plan, "tuned.safetensors", "preview"))


def planned() -> str:
    from ckptool.report.document_plan import plan_document

    plan = ckptool.plan_filter(FIXTURES / "resnet18.pth", [("drop", "fc.*")], dtype="bf16")
    return page_of(plan_document(plan, ["resnet18.pth"], "preview"))


PAGES: dict[str, Callable[[], str]] = {
    "inspect": inspected,
    "diff": compared,
    "check": checked,
    "transplant": transplanted,
    "filter": planned,
}


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[str, str]] = []
        self.shown = ""
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""
        if self._inside:
            self.raw.append((tag, ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            tag, text = self.raw.pop()
            self.raw.append((tag, text + data))
        else:
            self.shown += data

    @property
    def data(self) -> Any:
        return json.loads(self.raw[1][1])


# ---------------------------------------------------------------------------------------------- what it is made of


@pytest.mark.parametrize("make", PAGES.values(), ids=PAGES)
def test_a_page_is_one_file_that_needs_nothing_else(make: Callable[[], str]) -> None:
    found = Elements(make())
    assert [tag for tag, _ in found.raw] == ["style", "script", "script"]
    for tag, attributes in found.elements:
        assert not attributes.keys() & {"src", "href", "srcset", "action", "data", "style"}, tag
        assert not any(name.startswith("on") for name in attributes), tag
        assert tag not in {"link", "img", "iframe", "object", "base", "form", "a"}
    assert "url(" not in found.raw[0][1]
    assert "@import" not in found.raw[0][1]


@pytest.mark.parametrize("make", PAGES.values(), ids=PAGES)
def test_the_policy_allows_our_style_and_script_and_nothing_else(make: Callable[[], str]) -> None:
    found = Elements(make())
    policy = next(of["content"] for _, of in found.elements if of.get("http-equiv") == "Content-Security-Policy")
    digests = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for _, text in (found.raw[2], found.raw[0])
    ]
    assert policy == (
        f"default-src 'none'; script-src {digests[0]}; style-src {digests[1]}; base-uri 'none'; form-action 'none'"
    )


def test_the_script_makes_no_markup_of_text() -> None:
    script = Elements(checked()).raw[2][1]
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|setTimeout\(", script
    )
    assert not re.search(r"fetch\(|XMLHttpRequest|WebSocket|import\(|localStorage|document\.cookie", script)


def test_inspect_has_every_tensor_with_its_numbers() -> None:
    data = Elements(inspected()).data
    checkpoint = ckptool.open(FIXTURES / "resnet18.pth")
    assert [row[0] for row in data["rows"]] == list(checkpoint)
    titles = [column["title"] for column in data["columns"]]
    row = dict(zip(titles, data["rows"][0][2:], strict=True))
    first = next(iter(checkpoint.values()))
    assert (row["spec"], row["elements"], row["size"]) == (first.spec.short, first.elements, first.nbytes)
    assert len(row["histogram, √count"]) == 24
    assert len({len(row) for row in data["rows"]}) == 1


def test_diff_has_every_change() -> None:
    found = Elements(compared())
    statuses = [status["label"] for status in found.data["statuses"]]
    counts = {name: sum(row[1] == at for row in found.data["rows"]) for at, name in enumerate(statuses)}
    assert (counts["changed"], counts["reshaped"], counts["same"]) == (114, 2, 6)
    assert "~ 114 changed" in found.shown
    assert "only the classifier (fc) differs in shape" in found.shown


def test_check_has_every_finding_and_file() -> None:
    data = Elements(checked()).data
    assert [finding["message"] for finding in data["findings"]] == [finding.message for finding in FINDINGS]
    assert data["findings"][0]["policy"] == 'into = "torchvision:resnet18"  (ckptool.toml:2)'
    assert [row[0] for row in data["rows"]] == list(REPORT.files)
    assert Elements(page_of(check_document(CLEAN))).data["findings"] == []


def test_transplant_has_every_tensor_of_the_model() -> None:
    data = Elements(transplanted()).data
    statuses = [status["label"] for status in data["statuses"]]
    fates = {row[0]: statuses[row[1]] for row in data["rows"]}
    assert len(fates) == 122
    assert {key for key, fate in fates.items() if fate == "mismatched"} == {"fc.weight", "fc.bias"}


# ---------------------------------------------------------------------------------------------- hostile names


def hostile_inspection(text: str) -> Inspection:
    key = text.replace("\0", "?") or "empty"
    tensor = Tensor(TensorSpec(key, "float32", (2,)))
    checkpoint = Checkpoint(
        Path("x"),
        Format("torch zip"),
        {key: tensor},
        selection=Selection((text,), others=(text,)),
        extras=(Extra(text, text),),
        metadata={text: text},
    )
    return Inspection(checkpoint, text, (key,), ((key, key),), (Note(text, text or "x", level="warning"),))


def hostile_diff(text: str) -> Diff:
    report = hostile_inspection(text)
    tensor = next(report.tensors)
    change = Change(
        Status.CHANGED, tensor.key, tensor, tensor, Delta(rel=float("inf"), max_abs=float("nan"), differing=1)
    )
    extra = ExtraChange(Status.CHANGED, text, text, text)
    return Diff(report.checkpoint, report.checkpoint, Changes.of([change]), (extra,), notes=(Note(text, text or "x"),))


def hostile_pages(text: str) -> dict[str, str]:
    return {
        "inspect": page_of(inspect_document(hostile_inspection(text))),
        "diff": page_of(diff_document(hostile_diff(text), (text, text))),
        "check": page_of(check_document(hostile_report(text))),
    }


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_names_add_nothing_to_a_page(text: str) -> None:
    plain = hostile_pages("plain")
    for kind, made in hostile_pages(text).items():
        found, expected = Elements(made), Elements(plain[kind])
        assert [tag for tag, _ in found.elements] == [tag for tag, _ in expected.elements]
        assert [list(of) for _, of in found.elements] == [list(of) for _, of in expected.elements]
        assert [found.raw[0], found.raw[2]] == [expected.raw[0], expected.raw[2]]
        assert found.raw[1][1].isascii()
        assert not set(found.raw[1][1]) & set("<>&")
        made.encode("utf-8")


# ---------------------------------------------------------------------------------------------- in a browser

needs_chromium = pytest.mark.skipif(chromium() is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = chromium()
    assert program is not None
    with browser(program, tmp_path_factory.mktemp("chromium")) as found:
        found.size(1400, 900)
        yield found


@pytest.fixture
def show(opened: Browser, tmp_path: Path) -> Callable[[str], Browser]:
    def open_text(text: str) -> Browser:
        opened.console.clear()
        opened.requests.clear()
        path = tmp_path / "page.html"
        path.write_text(text, encoding="utf-8")
        opened.open(path)
        opened.settle()
        return opened

    return open_text


def keys(shown: Browser) -> list[str]:
    """The names in the first column, as they stand on the screen."""
    found: list[str] = shown.run("[...document.querySelectorAll('#rows .key')].map((cell) => cell.textContent)")
    return found


def text_of(shown: Browser, selector: str) -> str:
    return str(shown.run(f"document.querySelector({json.dumps(selector)}).textContent"))


def hears_nothing_bad(shown: Browser) -> None:
    assert shown.console == []
    assert [address.split(":")[0] for address in shown.requests] == ["file"]


@needs_chromium
@pytest.mark.parametrize("make", PAGES.values(), ids=PAGES)
def test_a_page_opens_without_a_complaint(make: Callable[[], str], show: Callable[[str], Browser]) -> None:
    shown = show(make())
    assert len(keys(shown)) >= 3
    hears_nothing_bad(shown)


@needs_chromium
def test_branches_open_and_close(show: Callable[[str], Browser]) -> None:
    shown = show(inspected())
    assert "layer1" in keys(shown)
    shown.run("document.getElementById('fold').click()")
    assert keys(shown) == ["conv1.weight", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"]
    shown.click("#rows [role=row]:nth-child(7) .twist")
    assert keys(shown)[-3:] == ["fc", "weight", "bias"]
    assert shown.run("document.querySelector('#rows .here').getAttribute('aria-expanded')") == "true"
    shown.click("#rows [role=row]:nth-child(7) .twist")
    assert keys(shown)[-1] == "fc"
    shown.run("document.getElementById('unfold').click()")
    assert shown.run("document.getElementById('grid').getAttribute('aria-rowcount')") == str(1 + 122 + 36)
    hears_nothing_bad(shown)


@needs_chromium
def test_the_search_finds_keys_and_marks_them(show: Callable[[str], Browser]) -> None:
    shown = show(inspected())
    shown.press("/")
    shown.type("layer4 conv*weight")
    assert text_of(shown, "#shown") == "4 of 122 tensors"
    leaves = shown.run("[...document.querySelectorAll('#rows .leaf .key')].map((cell) => cell.textContent)")
    assert leaves == ["conv1.weight", "conv2.weight", "conv1.weight", "conv2.weight"]
    assert shown.run("document.querySelectorAll('#rows mark').length") > 4
    shown.press("Escape")
    assert text_of(shown, "#shown") == "122 tensors"
    shown.press("/")
    shown.type("no such key")
    assert not shown.run("document.getElementById('nothing').hidden")


@needs_chromium
def test_columns_sort_both_ways_and_back(show: Callable[[str], Browser]) -> None:
    shown = show(inspected())
    shown.run("document.getElementById('flat').click()")
    before = keys(shown)
    titles = shown.run("[...document.querySelectorAll('#titles button')].map((button) => button.textContent)")
    size = f"#titles [role=columnheader]:nth-child({titles.index('size') + 1}) button"
    shown.click(size)
    report = inspection(FIXTURES / "resnet18.pth", stats=False)
    largest = sorted(report.tensors, key=lambda tensor: -tensor.nbytes)
    assert keys(shown)[:3] == [tensor.key for tensor in largest[:3]]
    assert shown.run("document.querySelector('[aria-sort]').getAttribute('aria-sort')") == "descending"
    shown.click(size)
    assert report.checkpoint[keys(shown)[0]].nbytes == largest[-1].nbytes
    shown.click(size)
    assert keys(shown) == before


@needs_chromium
def test_keys_move_open_and_show_the_details(show: Callable[[str], Browser]) -> None:
    shown = show(inspected())
    shown.run("document.getElementById('fold').click(); document.getElementById('grid').focus()")
    shown.press("ArrowDown")
    shown.press("ArrowRight")
    assert keys(shown)[1:3] == ["bn1", "weight"]
    shown.press("ArrowDown")
    shown.press("Enter")
    assert text_of(shown, "#panel h2") == "bn1.weight"
    assert shown.run("document.querySelectorAll('#panel svg path').length") == 1
    assert "f32[" in text_of(shown, "#panel dl")
    shown.press("Escape")
    assert shown.run("document.getElementById('panel').hidden")
    shown.press("ArrowLeft")
    shown.press("ArrowLeft")
    assert keys(shown)[1:3] == ["bn1", "layer1"]
    hears_nothing_bad(shown)


@needs_chromium
def test_filters_hide_what_is_the_same(show: Callable[[str], Browser]) -> None:
    shown = show(compared())
    chips = shown.run("[...document.querySelectorAll('#chips button')].map((chip) => chip.textContent)")
    assert chips == ["~ 114 changed", "! 2 reshaped", "= 6 same"]
    shown.click("#chips button:nth-child(3)")
    assert text_of(shown, "#shown") == "116 of 122 tensors"
    assert "conv1.weight" not in keys(shown)
    shown.click("#chips button:nth-child(1)")
    assert keys(shown) == ["fc", "bias", "weight"]


@needs_chromium
def test_findings_stand_above_the_files(show: Callable[[str], Browser]) -> None:
    shown = show(checked())
    heads = shown.run("[...document.querySelectorAll('.finding h2')].map((head) => head.textContent)")
    assert heads[0] == "error[fits]: 2 tensors do not fit torchvision:resnet18"
    assert len(heads) == 3
    assert "2 errors" in text_of(shown, "#chips")
    shown.click("#chips button:nth-child(1)")
    assert shown.run("document.querySelectorAll('.finding').length") == 1
    shown.click("#chips button:nth-child(1)")
    shown.run("document.getElementById('grid').focus()")
    shown.press("ArrowDown")
    shown.press("Enter")
    assert text_of(shown, "#panel .finding h2") == heads[0]


@needs_chromium
def test_light_and_dark(show: Callable[[str], Browser]) -> None:
    shown = show(checked())
    color = "getComputedStyle(document.documentElement).backgroundColor"
    shown.scheme("light")
    light = shown.run(color)
    shown.scheme("dark")
    dark = shown.run(color)
    assert light != dark
    shown.click("#theme")
    assert (text_of(shown, "#theme"), shown.run(color)) == ("theme: light", light)
    shown.click("#theme")
    shown.scheme("light")
    assert (text_of(shown, "#theme"), shown.run(color)) == ("theme: dark", dark)


@needs_chromium
@pytest.mark.parametrize("width", [360, 700, 2400])
@pytest.mark.parametrize("make", PAGES.values(), ids=PAGES)
def test_nothing_sticks_out_at_any_width(make: Callable[[], str], width: int, show: Callable[[str], Browser]) -> None:
    shown = show("")
    try:
        shown.size(width, 800)
        show(make())
        assert shown.run("document.documentElement.scrollWidth") <= width
        assert len(keys(shown)) >= 3
    finally:
        shown.size(1400, 900)


@needs_chromium
def test_a_hundred_thousand_tensors_cost_no_more_than_a_screen(show: Callable[[str], Browser]) -> None:
    rows = ([f"layers.{at // 10}.mlp.{at % 10}.weight", None, at] for at in range(100_000))
    fields = (Field("key"), Field("", "tensors", "tensors"), Field("elements", "elements", "count", "add"))
    big = Document("big", Answer("big"), lambda: (), lambda: Table(fields, rows), dict, lambda: iter(()), dict, list)  # type: ignore[arg-type]
    shown = show(page_of(big))
    shown.run("document.getElementById('unfold').click()")
    assert shown.run("document.querySelectorAll('#rows > div').length") < 100
    shown.run("window.scrollTo(0, document.body.scrollHeight)")
    shown.settle()
    assert "9.weight" in keys(shown)
    shown.run("document.getElementById('grid').focus()")
    shown.press("Home")
    assert keys(shown)[0] == "layers"
    shown.press("/")
    shown.type("layers.9999.")
    assert text_of(shown, "#shown") == "10 of 100,000 tensors"
    shown.run("document.getElementById('flat').click()")
    assert keys(shown) == [f"layers.9999.mlp.{at}.weight" for at in range(10)]
    hears_nothing_bad(shown)


@needs_chromium
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_names_do_nothing_in_a_browser(text: str, show: Callable[[str], Browser]) -> None:
    for made in hostile_pages(text).values():
        shown = show(made)
        shown.run("document.getElementById('unfold').click(); document.getElementById('grid').focus()")
        for _ in range(4):
            shown.press("ArrowDown")
        shown.press("Enter")
        assert shown.run("document.querySelectorAll('#rows [role=row]').length") >= 1
        assert shown.run("document.querySelectorAll('script').length") == 2
        assert shown.run("document.querySelectorAll('img, a, iframe, link, form').length") == 0
        hears_nothing_bad(shown)


# ---------------------------------------------------------------------------------------------- pictures


def bars(shown: Browser) -> list[list[str]]:
    """For each chart of a page its title and the keys of its bars."""
    found: list[list[str]] = shown.run(
        "[...document.querySelectorAll('.chart')].map((chart) => [chart.querySelector('figcaption').firstChild.data,"
        " ...[...chart.querySelectorAll('rect')].map((bar) => bar.dataset.key)])"
    )
    return found


@needs_chromium
@pytest.mark.parametrize(
    ("make", "titles", "bar"),
    [
        (inspected, ["norm", "spread", "zeros", "outliers"], "layer4.1.conv2.weight"),
        (compared, ["relative change"], "layer4.1.conv2.weight"),
        (transplanted, ["loaded from the source"], "fc"),
        (compared, ["relative change"], "layer1.0.bn1.weight"),
    ],
    ids=["inspect", "diff", "transplant", "a name in others"],
)
def test_a_bar_of_a_chart_finds_its_tensors(
    make: Callable[[], str], titles: list[str], bar: str, show: Callable[[str], Browser]
) -> None:
    shown = show(make())
    charts = bars(shown)
    assert [chart[0].split(" ")[0] for chart in charts] == [title.split(" ")[0] for title in titles]
    assert all(bar in chart for chart in charts if len(chart) > 1)
    shown.click(f'.chart [data-key="{bar}"]')
    assert text_of(shown, "#shown") == f"{2 if bar == 'fc' else 1} of 122 tensors"
    assert shown.run(f"document.querySelector('.chart [data-key=\"{bar}\"] title').textContent").startswith(f"{bar}: ")
    hears_nothing_bad(shown)


@needs_chromium
def test_charts_have_the_colours_of_the_theme(show: Callable[[str], Browser]) -> None:
    shown = show(transplanted())
    fill = "getComputedStyle(document.querySelector('.chart [data-key=\"fc\"]')).fill"
    shown.scheme("light")
    light = shown.run(fill)
    shown.scheme("dark")
    assert shown.run(fill) != light
    loaded = "getComputedStyle(document.querySelector('.chart [data-key=\"conv1\"]')).fill"
    assert shown.run(loaded) != shown.run(fill)
    shown.scheme("light")


def test_bars_of_a_chart_are_the_values() -> None:
    from ckptool.report.blocks import Chart, Series
    from ckptool.report.chart import chart_html

    values = (1.0, 10.0, 100.0, None, float("nan"), float("inf"))
    keys = tuple(f"layer{at}.weight" for at in range(6))
    found = "".join(chart_html(Chart("t", keys, (Series("norm", values, log=True),))))
    assert [float(tall) for tall in re.findall(r' height="([\d.]+)" data-key', found)] == [2, 29, 56, 56, 56]
    many = Chart("t", tuple(map(str, range(100_000))), (Series("norm", tuple(map(float, range(100_000)))),))
    assert "".join(chart_html(many)).count("<rect") == 240
    assert 'data-key="99999"' in "".join(chart_html(many))


@needs_chromium
def test_what_a_notebook_draws_needs_no_script(show: Callable[[str], Browser]) -> None:
    made = ckptool.compare(FIXTURES / "resnet18.pth", FIXTURES / "tuned.safetensors")._repr_html_()  # type: ignore[attr-defined]
    shown = show(f"<!doctype html><meta charset=utf-8><body>{made}</body>")
    assert shown.run("document.querySelectorAll('script').length") == 0
    assert shown.run("document.querySelectorAll('table.rows tbody tr').length") == 8
    assert shown.run("document.querySelectorAll('.chart rect').length") > 90
    assert shown.run("getComputedStyle(document.querySelector('.ckptool .answer')).color") != "rgb(0, 0, 0)"
    hears_nothing_bad(shown)
