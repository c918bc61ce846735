"""`inspect` as text: who the file is, its tree, what it holds besides, what an expert would add, what to type next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ckptool.core.checkpoint import Checkpoint, Extra, GlobalUse, Note
from ckptool.core.initial import INITIAL_KEY
from ckptool.core.shell import shell_quote
from ckptool.report.escape import terminal
from ckptool.report.inspection import Inspection, format_text
from ckptool.report.text import Line, Screen, Span, Style, fit, wrap
from ckptool.report.text_tree import tree_lines
from ckptool.report.text_width import cells, elide
from ckptool.report.tree import Tree
from ckptool.report.units import count, number_of, size_short

_MANY = 12  # entries of a list that are named
_VALUE = 48  # characters of a value


def inspect_lines(report: Inspection, tree: Tree, screen: Screen) -> Iterator[Line]:
    """What the file is, what is wrong with it, its tree, what else it holds, and what to type next."""
    yield from header(report.checkpoint, report.name, screen)
    yield from totals(report, screen)
    warnings = [*_nonfinite_notes(report), *(note for note in report.notes if note.level == "warning")]
    yield from note_lines(warnings, screen)
    if report.keys:
        yield ()
        yield from tree_lines(report, tree, screen)
    notes = [note for note in report.notes if note.level != "warning"]
    below = [*_besides(report, screen), *note_lines(notes, screen), *_deeper(report, tree, screen)]
    if below:
        yield ()
        yield from below


def header(checkpoint: Checkpoint, name: str, screen: Screen) -> Iterator[Line]:
    """``resnet18.pth   torch zip, 46.8 MB, weights under "model"``"""
    shown = terminal(name)
    if screen.elide:
        shown = elide(shown, max(20, screen.width - 30))
    facts = list(fit(_facts(checkpoint), Screen(width=screen.width - 3, elide=screen.elide)))
    if not screen.elide or cells(shown) + 3 + cells(", ".join(facts)) <= screen.width:
        yield (Span(shown, "bold"), Span("   " + ", ".join(facts)))
        return
    yield (Span(shown, "bold"),)
    for fact in facts:
        yield (Span(elide("  " + fact, screen.width)),)


def _facts(checkpoint: Checkpoint) -> list[str]:
    facts = [format_text(checkpoint), size_short(checkpoint.nbytes)]
    if checkpoint.selection.path:
        facts.append(f'weights under "{terminal(checkpoint.selection.name)}"')
    return facts


def totals(report: Inspection, screen: Screen) -> Iterator[Line]:
    """``122 tensors, 11.70M elements (102 f32, 20 i64), nothing unsafe in the pickle``, and what is unsafe."""
    shown = number_of(len(report.keys), "tensor")
    if report.is_partial:
        shown = f"{len(report.keys):,} of {number_of(len(report.checkpoint), 'tensor')}"
    dtypes = ", ".join(f"{many:,} {dtype}" for dtype, many in report.dtypes)
    parts = [shown, f"{count(report.elements)} elements" + (f" ({dtypes})" if dtypes else "")]
    if report.is_pickle and not report.dangerous and not report.unknown:
        parts.append("nothing unsafe in the pickle")
    if report.logical is not None:
        tensors, elements, nbytes = report.logical
        parts.append(f"decoded {number_of(tensors, 'tensor')}, {count(elements)} elements, {size_short(nbytes)}")
    parts.extend(_nonfinite(report))
    yield from ((Span(line),) for line in fit(parts, screen, indent="  "))
    for use in report.dangerous[:_MANY]:
        text = f"asks for {terminal(use.name)} ({_called(use)}); ckptool never runs it"
        yield from ((Span(line, "red"),) for line in wrap(text, screen))
    if len(report.dangerous) > _MANY:
        yield (Span(f"asks for {len(report.dangerous) - _MANY:,} more such globals (all: --json)", "red"),)
    if report.unknown:
        names = _listed([terminal(use.name) for use in report.unknown], most=3)
        text = f"needs {number_of(len(report.unknown), 'class', 'classes')} that ckptool leaves as data: {names}"
        yield from ((Span(line),) for line in wrap(text, screen))


def _called(use: GlobalUse) -> str:
    if not use.calls:
        return "named, not called"
    times = "" if use.calls == 1 else f" {use.calls:,} times"
    return f"called{times} with {number_of(use.arguments, 'argument')}"


def _nonfinite(report: Inspection) -> list[str]:
    if not report.stats:
        return []
    stats = report.stats.values()
    return [f"{sum(item.nan for item in stats):,} NaN", f"{sum(item.inf for item in stats):,} Inf"]


def _nonfinite_notes(report: Inspection) -> Iterator[Note]:
    """Which tensors hold NaN or Inf."""
    odd = {key: item for key, item in report.stats.items() if item.nan or item.inf}
    for key, item in list(odd.items())[:_MANY]:
        counts = [f"{many:,} {what}" for many, what in ((item.nan, "NaN"), (item.inf, "Inf")) if many]
        yield Note(f"{' and '.join(counts)} in {key} (of {count(item.elements)})", keys=(key,), level="warning")
    if len(odd) > _MANY:
        yield Note(f"NaN or Inf in {len(odd) - _MANY:,} more tensors", "all: --stats --json", level="warning")


def _listed(names: Sequence[str], separator: str = ", ", most: int = _MANY) -> str:
    more = len(names) - most
    return separator.join(names[:most]) + (f"{separator}{more:,} more" if more > 0 else "")


def _besides(report: Inspection, screen: Screen) -> Iterator[Line]:
    """What the file holds beside the tensors shown."""
    if report.is_partial:  # the question was about some tensors, not about the file
        return
    checkpoint = report.checkpoint
    facts: list[tuple[str, list[str]]] = [
        ("not tensors", [_extra(extra) for extra in checkpoint.extras]),
        (
            "metadata",
            [
                f"{terminal(name)} = {_value(value)}"
                for name, value in checkpoint.metadata.items()
                if name != INITIAL_KEY
            ],
        ),
        ("other weights", _others(checkpoint)),
        ("tied", [" = ".join(_tie(group)) for group in report.ties]),
        ("module versions", _versions(checkpoint)),
    ]
    for title, entries in facts:
        if entries:
            listed = [*entries[:_MANY], *([f"{len(entries) - _MANY:,} more"] if len(entries) > _MANY else [])]
            first, *rest = list(fit([f"{title}: {listed[0]}", *listed[1:]], screen, indent="  "))
            yield (Span(f"{title}:", "dim"), Span(first.removeprefix(f"{title}:")))
            yield from ((Span(line),) for line in rest)


def _extra(extra: Extra) -> str:
    name = terminal(extra.name, _VALUE)
    if extra.tensors:
        return f"{name} ({number_of(extra.tensors, 'tensor')}, {size_short(extra.nbytes)})"
    return f"{name} = {_value(extra.text)}"


def _value(text: str) -> str:
    return terminal(text if len(text) <= _VALUE else f"{text[: _VALUE - 1]}…")


def _others(checkpoint: Checkpoint) -> list[str]:
    selection = checkpoint.selection
    names = [name for name in selection.others if name != selection.ema]
    entries = [f"{terminal(selection.ema)} (moving average)"] if selection.ema else []
    entries += [terminal(name) for name in names]
    if entries:
        take = selection.ema or names[0]
        entries[min(len(entries), _MANY) - 1] += f"   (take them: --select {shell(take)})"
    return entries


def _tie(group: Sequence[str]) -> list[str]:
    shown = [terminal(key, 80) for key in group[:4]]
    return [*shown, f"{len(group) - 4:,} more"] if len(group) > 4 else shown


def _versions(checkpoint: Checkpoint) -> list[str]:
    versions = Counter((checkpoint.module_versions or {}).values())
    return [f"{version} ({number_of(many, 'module')})" for version, many in sorted(versions.items())]


def note_lines(notes: Sequence[Note], screen: Screen) -> Iterator[Line]:
    """Notes and warnings, a sentence each; identical ones once."""
    for note in dict.fromkeys((note.level, note.text, note.hint) for note in notes):
        level, text, hint = note
        style: Style = "yellow" if level == "warning" else "dim"
        first, *rest = list(wrap(f"{level}: {terminal(text, 600)}", screen))
        yield (Span(f"{level}:", style), Span(first.removeprefix(f"{level}:")))
        yield from ((Span(line),) for line in rest)
        if hint:
            yield from ((Span(line),) for line in wrap(terminal(hint, 600), screen, first="  "))


def _deeper(report: Inspection, tree: Tree, screen: Screen) -> Iterator[Line]:
    """What to type next."""
    options: list[str] = []
    if tree.hides:
        options.append(f"--depth {tree.depth + 1}")
    parts = [f"deeper: {options[0]}"] if options else []
    if tree.module and not report.is_partial:
        parts.append(f"one module: --only {shell(tree.module)}")
    if not report.stats and report.keys:
        parts.append("values: --stats")
    yield from ((Span(line, "dim"),) for line in fit(parts, screen, separator="    "))


def shell(text: str) -> str:
    """A word for a command line, in double quotes where a shell would read it otherwise."""
    if not any(char in text for char in "\"\\$`!'") and text.isprintable():
        return text if text.replace(".", "").replace("_", "").isalnum() and text.isascii() else f'"{text}"'
    return shell_quote(text)
