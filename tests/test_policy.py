"""Policies: read exactly, refused with the line, found from where one stands."""

from __future__ import annotations

import os
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptool.commands.checks.policy import Policy, find_policy, read_policy
from ckptool.commands.checks.settings import path_matches
from ckptool.commands.checks.toml_lines import key_lines
from ckptool.core.errors import UsageError
from ckptool.core.sizes import parse_size

DOCUMENT = '''\
# a = 0
a = 1 # b = 2
"quoted # key" = "]"  # [x]
'lit.eral'.b."c d" = """x
[not.a.table]
"quotes"" \\""" y""""
z = \'\'\'
k = 1
\'\'\'
[table] # comment
date = 1979-05-27 07:32:00
numbers = [1, [2, {k = "v", m.n = 3}], # }
  # "no" ]
  'four', ]
[table.deep."x.y"]
e = [ ]
f = {}
[[rows]]
match = 'a]'
[rows.sub]
q = -inf
[[rows]]
match = "b"
[[rows.inner]]
[[rows.inner]]
levels.dead = "off"
'''


def paths_of(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every key and element, as tomllib has read the document."""
    if at:
        yield at
    rows = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in rows:
        yield from paths_of(inner, (*at, key))


def test_lines_are_found_for_exactly_what_tomllib_reads() -> None:
    lines = key_lines(DOCUMENT)
    assert set(lines) == set(paths_of(tomllib.loads(DOCUMENT)))
    assert lines["a",] == 2
    assert lines["lit.eral", "b", "c d"] == 4
    assert lines["z",] == 7
    assert lines["table", "numbers", 1, 1, "m", "n"] == 12
    assert lines["table", "numbers", 2] == 14
    assert lines["table", "deep", "x.y", "f"] == 17
    assert lines["rows", 1] == 22
    assert lines["rows", 1, "inner", 1, "levels", "dead"] == 26


def test_line_ends_of_windows_count_once() -> None:
    assert key_lines(DOCUMENT.replace("\n", "\r\n")) == key_lines(DOCUMENT)


_WORDS = st.text("ab.#]}=,'\\ é", max_size=6)
_VALUES = st.recursive(
    st.integers() | st.booleans() | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=3),
    max_leaves=12,
)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[\n" + "".join(f"  {toml(inner)},\n" for inner in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


@given(st.dictionaries(_WORDS, _VALUES, max_size=4))
def test_lines_of_any_document(document: dict[str, Any]) -> None:
    text = "\n".join(f"{toml(key)} = {toml(value)}" for key, value in document.items())
    assert tomllib.loads(text) == document
    assert set(key_lines(text)) == set(paths_of(document))


# ---------------------------------------------------------------------------------------------------- reading

POLICY = """\
into     = "torchvision:resnet18"
model-args = { num_classes = 10 }
dtypes   = ["f32", "int64"]
max-size = "50MB"
drift    = { from = "resnet18.pth", keys = "{conv1,bn1}.*", rel = 0.0 }   # frozen stem
lock     = "weights.lock"
metadata = { format = "pt", license = true }
tied     = [["a", "b"]]
fail-on  = "warning"

[levels]
nonfinite = "warning"
dead = "off"

[allow]
missing = [
  "fc.*",
  "head",
]

[[paths]]
match = "release/*.pth"
max-size = 1000
levels.dead = "error"
allow.globals = "mypkg.Net"
"""


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    (tmp_path / "ckptool.toml").write_text(POLICY)
    return read_policy(tmp_path / "ckptool.toml")


def test_every_setting_is_read_with_its_line(policy: Policy) -> None:
    settings = policy.settings
    lines = {
        name: setting.place.line
        for name in ("into", "model-args", "dtypes", "max-size", "drift", "lock", "metadata", "tied")
        if (setting := settings.values.get(name))
    }
    assert lines == dict(
        zip(("into", "model-args", "dtypes", "max-size", "drift", "lock", "metadata", "tied"), range(1, 9), strict=True)
    )
    assert settings.values["into"].place.text == 'into     = "torchvision:resnet18"'
    assert settings.values["dtypes"].value == ("float32", "int64")
    assert settings.values["max-size"].value == 50_000_000
    assert settings.values["metadata"].value == {"format": "pt", "license": None}
    assert policy.fail_on == "warning"
    assert [(entry.pattern.text, entry.place.line) for entry in settings.allow] == [("fc.*", 17), ("head", 18)]
    assert settings.levels["nonfinite"].place.line == 12


def test_a_path_has_its_own_settings_on_top(policy: Policy, tmp_path: Path) -> None:
    release = policy.settings_for(tmp_path / "release" / "a.pth")
    size = release.values["max-size"]
    assert (size.value, size.place.line) == (1000, 23)
    assert release.values["lock"] == policy.settings.values["lock"]
    assert {name: level.value for name, level in release.levels.items()} == {"nonfinite": "warning", "dead": "error"}
    assert [entry.list for entry in release.allow] == ["missing", "missing", "globals"]
    assert policy.settings_for(tmp_path / "a.pth") == policy.settings
    assert policy.settings_for(tmp_path / "release" / "deep" / "a.pth") == policy.settings


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('x = 1\nmax_size = "1MB"', '1: "x" is not a key', "the keys are into"),
        ('max_size = "1MB"', '1: "max_size" is not a key', 'did you mean "max-size"?'),
        ("\n\ninto = 3", "3: into is not text", "into ="),
        ('into = ""', "1: into is not text", ""),
        ('dtypes = [\n "f32",\n "floaty32"]', '3: "floaty32" is not a dtype', 'did you mean "float32"?'),
        ("dtypes = []", "1: dtypes is not a list of texts", ""),
        ('max-size = "many"', '1: "many" is not a size', "50MB"),
        ("max-size = true", "1: max-size is not text", ""),
        ("drift = {keys = 'a'}", "1: drift without from", "from ="),
        ("drift = {from = 'a', to = 'b'}", '1: "to" is not a part of drift', "from, keys and rel"),
        ("[[drift]]\nfrom = 'a'\n[[drift]]\nfrom = 'b'\nrel = -1", "5: rel is -1", "rel = 0.0"),
        ("drift = {from = 'a', keys = 'a['}", '1: "a[" has a [', "[[]"),
        ("[levels]\nnonfinit = 'off'", '2: "nonfinit" is not a rule', 'did you mean "nonfinite"?'),
        ("levels.dead = 'bad'", "1: levels.dead is 'bad'", "error, warning, note or off"),
        ("[allow]\nmising = ['a']", '2: "mising" is not an allow-list', 'did you mean "missing"?'),
        ("allow.missing = [1]", "1: missing is not a list of texts", ""),
        ("allow.missing = ['a', '{b']", '1: "{b" has a {', ""),
        ("tied = ['a']", "1: tied is not a list of groups", ""),
        ("metadata = {a = 1}", "1: metadata.a is neither a text nor true", ""),
        ("fail-on = 'never'", '1: fail-on is "never"', "error, warning, note"),
        ("[[paths]]\nlock = 'a'", "1: [[paths]] without match", "match ="),
        ("[[paths]]\nmatch = 'a'\nfail-on = 'note'", '3: "fail-on" is not a key', ""),
        ("paths = 3", "1: paths is not a list of tables", "[[paths]]"),
        ("levels = 3", "1: levels is not a table", ""),
    ],
)
def test_what_is_malformed_is_refused_with_its_line(text: str, message: str, hint: str, tmp_path: Path) -> None:
    path = tmp_path / "ckptool.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_policy(path)
    assert caught.value.message.startswith(f"{path}:{message}")
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("data", [b"a = ", b"a = 1\na = 2", b"\xff\xfe", b"a = " + b"[" * 5000], ids=range(4))
def test_what_is_no_toml_is_said_to_be_none(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "ckptool.toml"
    path.write_bytes(data)
    with pytest.raises(UsageError, match="is not TOML"):
        read_policy(path)


def test_a_policy_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml does not exist"):
        read_policy(tmp_path / "none.toml")


# ---------------------------------------------------------------------------------------------------- finding


def test_it_is_found_upwards_up_to_the_root_of_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / "outer" / "repo" / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / "ckptool.toml").write_text('lock = "outer.lock"')
    (deep.parent.parent / ".git").mkdir()
    (deep.parent / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    monkeypatch.chdir(deep)
    assert find_policy() == Policy()

    (deep.parent.parent / "pyproject.toml").write_text('[tool.ckptool.check]\nlock = "w.lock"\n')
    found = find_policy()
    assert found.file == Path("../../pyproject.toml")
    assert found.settings.values["lock"].value == "w.lock"
    assert (found.settings.values["lock"].place.file, found.settings.values["lock"].place.line) == (
        "../../pyproject.toml",
        2,
    )
    assert found.folder.resolve() == deep.parent.parent

    (deep.parent.parent / "ckptool.toml").write_text('lock = "other.lock"')
    assert find_policy().file == Path("../../ckptool.toml")


def test_outside_of_a_repository_only_the_folder_itself_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "ckptool.toml").write_text('lock = "w.lock"')
    monkeypatch.chdir(tmp_path / "a")
    assert find_policy() == Policy()
    monkeypatch.chdir(tmp_path)
    assert find_policy().file == Path("ckptool.toml")


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_policy_of_another_user_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ckptool.toml").write_text('lock = "w.lock"')
    os.chown(tmp_path / "ckptool.toml", 12345, 12345)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="belongs to another user"):
        find_policy()
    assert "lock" in read_policy("ckptool.toml").settings.values


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "large", "nul"])
def test_a_policy_is_a_regular_file_of_some_size(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "ckptool.toml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "large":
        path.write_bytes(b"#" * 1_000_001)
    else:
        path = tmp_path / "a\0b"
    started = time.perf_counter()
    with pytest.raises(UsageError):
        read_policy(path)
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (".".join("a" * 20_000) + " = 1", "more than 100 dots"),
        (". ".join(['"a b"', "'c'"] * 1000) + " = 1", "more than 100 dots"),
        ("[" + ".".join("a" * 20_000) + "]", "more than 100 dots"),
        ("x = {" * 2000, "is not TOML"),
        ("max-size = " + "9" * 5000, "is not TOML"),
        ("max-size = 0x" + "f" * 5000, "more than 64 bits"),
        ("drift = {from = 'a', rel = 0x" + "f" * 5000 + "}", "more than 64 bits"),
        ('allow.missing = ["' + "{*,*}" * 4000 + '"]', "is too long"),
        ('max-size = "' + "9" * 5000 + '"', "is not a size"),
    ],
)
def test_a_policy_is_refused_before_it_costs_anything(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "ckptool.toml").write_text(text)
    started = time.perf_counter()
    with pytest.raises(UsageError, match=message):
        read_policy(tmp_path / "ckptool.toml")
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("pattern", ["**/" * 30 + "b", "*a" * 30 + "b", "**" * 100 + "/b", "*/**/" * 30 + "b"])
def test_no_path_pattern_takes_longer_than_its_path(pattern: str) -> None:
    started = time.perf_counter()
    assert not path_matches(pattern, "a/" * 40 + "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
    assert time.perf_counter() - started < 2


def test_a_pyproject_that_is_named_must_have_the_table(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text("[tool.ruff]\n")
    with pytest.raises(UsageError, match=r"has no table \[tool.ckptool.check\]"):
        read_policy(path)


def test_an_unknown_key_in_pyproject_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text("[tool.ruff]\nline-length = 1\n\n[tool.ckptool.check]\nintoo = 'x'\n")
    with pytest.raises(UsageError, match=r'pyproject.toml:5: "intoo" is not a key'):
        read_policy(path)


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("*.pth", "a.pth", True),
        ("*.pth", "x/y/a.pth", True),
        ("weights", "weights/x/a.pth", True),
        ("weights/", "x/weights/a.pth", True),
        ("weights/*.pth", "x/weights/a.pth", False),
        ("./weights/?.pth", "weights/a.pth", True),
        ("weights/?.pth", "weights/ab.pth", False),
        ("**/a.pth", "a.pth", True),
        ("**/a.pth", "x/y/a.pth", True),
        ("weights/**/a.pth", "weights/a.pth", True),
        ("weights/**", "weights/x/a.pth", True),
        ("weights/**", "weightsx/a.pth", False),
        ("w[1].pth", "w[1].pth", True),
        ("w[1].pth", "w1.pth", False),
    ],
)
def test_paths_fit_patterns(pattern: str, path: str, fits: bool) -> None:
    assert path_matches(pattern, path) is fits


def test_paths_are_seen_from_the_policy(policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "release").mkdir()
    monkeypatch.chdir(tmp_path / "release")
    assert policy.relative(Path("a.pth")) == "release/a.pth"
    assert policy.relative(Path(os.pardir) / "b.pth") == "b.pth"


def test_sizes() -> None:
    assert [parse_size(text) for text in ("0", "12", "1kB", "2MiB", "1.5 GB")] == [0, 12, 1000, 2**21, 1_500_000_000]
    for text in ("", "GB", "1e9", "-1", "1 XB", "1" * 20):
        with pytest.raises(UsageError, match="is not a size"):
            parse_size(text)


def test_a_text_without_quotes_is_explained(tmp_path: Path) -> None:
    (tmp_path / "ckptool.toml").write_text("into = torchvision:resnet18\n")
    with pytest.raises(UsageError, match="is not TOML") as refused:
        read_policy(tmp_path / "ckptool.toml")
    assert refused.value.hint == 'texts stand in quotes: name = "text"'
