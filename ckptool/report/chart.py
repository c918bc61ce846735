"""Charts of values over the depth of a model as inline SVG: no script needed, colours of the page's style."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from ckptool.report.blocks import Chart, Series
from ckptool.report.cells import cell_text
from ckptool.report.escape import html_text

_MOST = 240  # bars; where there are more values, one stands for the largest of each few
_HEIGHT = 56  # of the bars, in pixels
_LEAST = 2  # of a bar
_DEEPEST = 4  # levels of the names of modules
_NAMED = 6.0  # percent of the width that a module's name needs


def chart_html(chart: Chart) -> Iterator[str]:
    """A figure for each series, the names of the modules below the last."""
    if not chart.keys:
        return
    yield f'<section class="charts" aria-label="{html_text(chart.title)}"><h2>{html_text(chart.title)}</h2>\n'
    for series in chart.series:
        known = [value for value in series.values if value is not None and math.isfinite(value)]
        if known:
            yield from _figure(chart.keys, series, min(known), max(known))
    yield f'<svg class="axis" height="14">{"".join(_names(chart.keys))}</svg>\n</section>\n'


def _figure(keys: Sequence[str], series: Series, low: float, high: float) -> Iterator[str]:
    ends = " … ".join(dict.fromkeys((cell_text(series.kind, low), cell_text(series.kind, high))))
    yield f'<figure class="chart"><figcaption>{html_text(series.title)} <small>{html_text(ends)}</small></figcaption>\n'
    if high <= 0:
        yield "</figure>\n"
        return
    yield f'<svg role="img" aria-label="{html_text(f"{series.title}: {ends}")}" height="{_HEIGHT}">\n'
    width = 100 / min(_MOST, len(keys))
    least = 10 if series.styles else _LEAST  # what has a colour of its own is seen
    for number, at in enumerate(_largest(series.values)):
        value = None if at is None else series.values[at]
        if at is None or value is None:
            continue
        tall = least + (_HEIGHT - least) * _part(value, low, high, series.log)
        style = series.styles[at] if series.styles else "bar"
        yield (
            f'<rect class="{style}" x="{number * width:.3f}%" width="{width:.3f}%" y="{_HEIGHT - tall:.1f}"'
            f' height="{tall:.1f}" data-key="{html_text(keys[at])}">'
            f"<title>{html_text(keys[at])}: {html_text(cell_text(series.kind, value))}</title></rect>\n"
        )
    yield "</svg></figure>\n"


def _largest(values: Sequence[float | None]) -> Iterator[int | None]:
    """For each bar the place of its largest value; None where it has none."""
    many = min(_MOST, len(values))
    for bar in range(many):
        places = range(bar * len(values) // many, (bar + 1) * len(values) // many)
        yield max((at for at in places if values[at] is not None), key=lambda at: values[at] or 0.0, default=None)


def _part(value: float, low: float, high: float, log: bool) -> float:
    """How tall a bar is, 0 to 1; what is not finite is as tall as can be."""
    if not math.isfinite(value):
        return 1.0
    if not log:
        return value / high if high > 0 else 0.0
    if value <= 0 or high <= 0:
        return 0.0
    low = max(low, high * 1e-6)
    return max(0.0, math.log(value / low) / math.log(high / low)) if high > low else 1.0


def _names(keys: Sequence[str]) -> Iterator[str]:
    """The modules whose tensors follow each other, where there is room for their names."""
    depth = 1
    while depth < _DEEPEST and max(Counter(_module(key, depth) for key in keys).values()) > 0.6 * len(keys):
        depth += 1
    start = 0
    for at in range(1, len(keys) + 1):
        name = _module(keys[start], depth)
        if at == len(keys) or _module(keys[at], depth) != name:
            if 100 * (at - start) / len(keys) >= _NAMED:
                yield f'<text x="{100 * start / len(keys):.3f}%" y="11">{html_text(name)}</text>'
            start = at


def _module(key: str, depth: int) -> str:
    return ".".join(key.split(".")[:depth])
