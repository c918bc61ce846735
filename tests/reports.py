"""Reports of findings for tests of outputs: the one of the design, and one in which every name is hostile."""

from __future__ import annotations

from ckptool.commands.checks.finding import Finding, Outcome, Place, Report

FILES = ("weights/tuned.safetensors", "weights/old.pth", "weights/run-b.safetensors")
RULES = ("readable", "unsafe-pickle", "fits", "dtype", "nonfinite", "tied", "drift", "size", "lock")
_INTO = Place("ckptool.toml", 2, 'into = "torchvision:resnet18"')
_FIT = "ckptool transplant weights/tuned.safetensors --into torchvision:resnet18 --mismatch skip"

FINDINGS = (
    Finding(
        "fits",
        "error",
        FILES[0],
        "2 tensors do not fit torchvision:resnet18",
        ("fc.weight", "fc.bias"),
        ("fc.weight  f32[10,512]   model f32[1000,512]", "fc.bias    f32[10]       model f32[1000]"),
        _FIT,
        _INTO,
    ),
    Finding(
        "unsafe-pickle",
        "error",
        FILES[1],
        "loading this file would run code",
        details=("global posix.system, called with 1 argument",),
        help="ask for safetensors; ckptool never executes it",
    ),
    Finding("nonfinite", "warning", FILES[2], "3 NaN in layer4.1.conv2.weight (of 2.36M)", ("layer4.1.conv2.weight",)),
)

_TEXTS = {"fits": "2", "unsafe-pickle": "refused", "nonfinite": "3 NaN"}


def _outcome(file: str, rule: str) -> Outcome:
    if any(finding.file == file and finding.rule == rule for finding in FINDINGS):
        return Outcome(file, rule, "found", _TEXTS[rule])
    unread = file == FILES[1] and rule not in ("readable", "size")
    return Outcome(file, rule, "skipped" if unread else "ok")


REPORT = Report(FILES, RULES, FINDINGS, tuple(_outcome(file, rule) for file in FILES for rule in RULES), 0.42)
CLEAN = Report(FILES[:1], RULES, (), tuple(Outcome(FILES[0], rule, "ok") for rule in RULES))

HOSTILE = {
    "escape codes": "\x1b[2J\x1b]52;c;ZXZpbA==\x07evil",
    "c1 and backspace": "\x9b31mgood\x08\x08evil",
    "carriage return": "good\revil\tx",
    "workflow command": "a\n::error file=x::pwned\n::set-env name=PATH::x",
    "workflow command in a row": "::error::pwned",
    "azure command": "##[error]pwned",
    "properties": "a,line=9,title=x::pwned%0A::error::y",
    "percent": "100%25%0A%0D",
    "rich markup": "[/nope][bold red]x[/]",
    "markdown table": "a|b|c",
    "markdown code": "`x` ``y`` ```",
    "markdown link": "[x](http://evil/) ![y](http://evil/z.png) <http://evil>",
    "markdown mention": "@everyone #1 *b* _i_ ~s~ # head",
    "html": "<script>alert(1)</script><img src=x onerror=alert(2)>&amp;",
    "html attribute": '" onmouseover="alert(1)" x=\'y\'',
    "end of script": "</script><script>alert(1)</script><!--",
    "json in html": "\u2028\u2029]]>",
    "xml": "]]><!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>&e;",
    "xml illegal": "a\0b\x0b\x0c\ufffe\uffff\x1f",
    "lone surrogate": "a\udcffb\ud800c",
    "bidi": "\u202egnp.exe\u2066x\u2069",
    "zero width": "a\u200bb\ufeffc",
    "formula": '=HYPERLINK("http://evil","x")',
    "formula plus": "+1+cmd|' /C calc'!A0",
    "sarif link": "[click](http://evil) {0} \\[",
    "spaces": "  a  b  ",
    "empty": "",
    "long": "k" * 100_000,
    "path": "../../etc/passwd#frag?query=1&x=%41",
    "wide": "重み.weight é",
}


def hostile_report(text: str) -> Report:
    """A report in which every text that a file or a policy chose is this one."""
    place = Place(text, 3, text)
    finding = Finding("dtype", "error", text, text, (text, "plain"), (text, "plain"), text or "x", place)
    mild = Finding("size", "warning", text, text, (text,), (text,), text or "x")
    outcomes = (
        Outcome(text, "dtype", "found", text),
        Outcome(text, "size", "found", text),
        Outcome(text, "x", "skipped"),
    )
    return Report((text,), ("dtype", "size", "x"), (finding, mild), outcomes, 1.5)
