from __future__ import annotations

import fnmatch
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptool.core import regexes
from ckptool.core.errors import UsageError
from ckptool.core.keys import (
    Pattern,
    choose,
    common_prefix,
    escape,
    natural_key,
    pin,
    quote,
    strip_wrappers,
    wrapper_prefix,
)
from ckptool.core.near_miss import near_miss, require_match
from ckptool.core.outlines import outline

KEYS = [
    "conv1.weight",
    "bn1.weight",
    "bn1.bias",
    "bn1.num_batches_tracked",
    "layer1.0.conv1.weight",
    "layer1.0.bn2.bias",
    "layer1.1.se.fc.weight",
    "layer2.0.conv1.weight",
    "layer10.0.conv1.weight",
    "se_module.fc.bias",
    "fc.weight",
    "fc.bias",
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*", KEYS),
        ("fc.*", ["fc.weight", "fc.bias"]),
        ("fc", ["fc.weight", "fc.bias"]),
        ("bias", ["bn1.bias", "layer1.0.bn2.bias", "se_module.fc.bias", "fc.bias"]),
        ("num_batches_tracked", ["bn1.num_batches_tracked"]),
        ("*.num_batches_tracked", ["bn1.num_batches_tracked"]),
        ("layer?.0.*", ["layer1.0.conv1.weight", "layer1.0.bn2.bias", "layer2.0.conv1.weight"]),
        ("*bn[12].b*", ["bn1.bias", "layer1.0.bn2.bias"]),
        ("*bn[!2].b*", ["bn1.bias"]),
        ("layer{2-12}.*", ["layer2.0.conv1.weight", "layer10.0.conv1.weight"]),
        ("layer{2,10}", ["layer2.0.conv1.weight", "layer10.0.conv1.weight"]),
        ("layer1.0", ["layer1.0.conv1.weight", "layer1.0.bn2.bias"]),
        ("layer1.{1,3-9}", ["layer1.1.se.fc.weight"]),
        ("bn1.{weight,bias}", ["bn1.weight", "bn1.bias"]),
        ("{fc,se_module.fc}.bias", ["se_module.fc.bias", "fc.bias"]),
        ("{fc.*,bn{1,2}.bias}", ["bn1.bias", "fc.weight", "fc.bias"]),
        ("fc.{,un}bias", ["fc.bias"]),
        ("module", []),
        ("FC", []),
        ("re:.*bn\\d\\.bias", ["bn1.bias", "layer1.0.bn2.bias"]),
        ("re:fc", []),
    ],
)
def test_what_a_pattern_selects(text: str, expected: list[str]) -> None:
    pattern = Pattern.parse(text)
    assert pattern.select(KEYS) == expected
    assert [key for key in KEYS if pattern.matches(key)] == expected


def test_a_word_is_never_cut_out_of_a_name() -> None:
    assert Pattern.parse("fc").select(["fcx.weight", "a.fc.weight", "a.xfc", "fc_", "a.fc", "fc"]) == ["a.fc", "fc"]


@pytest.mark.parametrize("text", ["", "a[0", "a[]", "{a", "{0-3", "{5-2}.x", "{01-100}.x", "re:(", "[z-a]", "{" * 50])
def test_malformed_patterns_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError):
        Pattern.parse(text)


def test_patterns_are_equal_by_text() -> None:
    assert Pattern.parse("fc.*") == Pattern.parse("fc.*")
    assert len({Pattern.parse("fc.*"), Pattern.parse("fc.*")}) == 1


names = st.text(alphabet="ab01.", max_size=8)


@given(glob=st.text(alphabet="ab01.*?[]!-", max_size=8), keys=st.lists(names))
def test_globs_with_a_star_mean_what_fnmatch_means(glob: str, keys: list[str]) -> None:
    try:
        pattern = Pattern.parse(glob + "*")
    except UsageError:
        return
    assert pattern.select(keys) == [key for key in keys if fnmatch.fnmatchcase(key, glob + "*")]


@given(low=st.integers(0, 20_000), length=st.integers(0, 20_000), probe=st.integers(0, 50_000))
def test_ranges_hold_their_numbers_and_no_others(low: int, length: int, probe: int) -> None:
    high = low + length
    pattern = Pattern.parse(f"a.{{{low}-{high}}}")
    for number in {low, high, low + length // 2, max(low - 1, 0), high + 1, probe}:
        assert pattern.matches(f"a.{number}") == (low <= number <= high)
    assert not pattern.matches(f"a.0{low}")


def test_padded_ranges() -> None:
    assert Pattern.parse("b{08-11}").select(["b8", "b08", "b09", "b11", "b011", "b12"]) == ["b08", "b09", "b11"]


odd_keys = st.one_of(names, st.text(alphabet="re:{}[]*?!,-ab.0\n", max_size=8), st.text(max_size=5))


@given(key=odd_keys, keys=st.lists(odd_keys))
def test_a_quoted_key_matches_itself_alone(key: str, keys: list[str]) -> None:
    assert set(Pattern.parse(quote(key, strict=True)).select([*keys, key])) == {key}
    if not any(other.startswith(f"{key}.") for other in keys):
        assert set(Pattern.parse(quote(key)).select([*keys, key])) == {key}


@given(parts=st.lists(odd_keys.filter(bool), min_size=2, max_size=4), keys=st.lists(odd_keys))
def test_escaped_texts_can_stand_in_braces(parts: list[str], keys: list[str]) -> None:
    text = "{" + ",".join(escape(part, in_braces=True) for part in parts) + "}"
    assert set(Pattern.parse(pin(text)).select([*keys, *parts])) == set(parts)


@given(st.lists(st.integers(0, 10**6)))
def test_natural_order_is_the_order_of_the_numbers(numbers: list[int]) -> None:
    assert sorted((f"a.{n}.b" for n in numbers), key=natural_key) == [f"a.{n}.b" for n in sorted(numbers)]


def test_natural_order_takes_numbers_of_any_length() -> None:
    assert sorted(["9" * 9999, "1", "01", "", "a"], key=natural_key) == ["", "01", "1", "9" * 9999, "a"]


def choice(keys: list[str], *actions: str) -> list[str]:
    parsed = [(action[0] == "+", Pattern.parse(action[1:])) for action in actions]
    return [key for key, (kept, _) in choose(keys, parsed).items() if kept]


def test_the_later_of_keep_and_drop_wins() -> None:
    keys = ["a.w", "a.b", "c.w", "c.b"]
    assert choice(keys) == keys
    assert choice(keys, "-a") == ["c.w", "c.b"]
    assert choice(keys, "+a") == ["a.w", "a.b"]
    assert choice(keys, "-b", "+a") == ["a.w", "a.b", "c.w"]
    assert choice(keys, "+a", "-b") == ["a.w"]
    drop = Pattern.parse("a")
    assert choose(keys, [(False, drop)])["a.w"] == (False, drop)
    assert choose(keys, [(False, drop)])["c.w"] == (True, None)


@pytest.mark.parametrize(
    ("text", "keys", "expected"),
    [
        ("classifier.*", KEYS, "fc.*"),
        ("classifier", KEYS, "fc"),
        ("layer5.*", ["layer3.0.w", "layer4.0.w"], "layer4.*"),
        ("layer?.0", KEYS, "layer?.0.*"),
        ("FC.*", KEYS, "fc.*"),
        ("fc.*", ["module.fc.weight", "module.bn.weight"], "module.fc.*"),
        ("head.*", ["module.fc.weight", "module.bn.weight"], "module.fc.*"),
        ("module.fc.*", KEYS, "fc.*"),
        ("num_batches", KEYS, "num_batches_tracked"),
        ("conv1.wieght", KEYS, "conv1.weight"),
        ("attn.*", ["blocks.0.attn.qkv.weight"], "blocks.0.attn.*"),
        ("attn.*", ["blocks.0.attn.qkv.weight", "norm.weight"], "*.attn.*"),
        ("resnet.fc.*", KEYS, "fc.*"),
        ("re:bn1", KEYS, "re:.*(?:bn1).*"),
        ("zzzzqq.*", KEYS, None),
        ("fc", [], None),
    ],
)
def test_near_misses(text: str, keys: list[str], expected: str | None) -> None:
    assert not Pattern.parse(text).select(keys)
    near = near_miss(Pattern.parse(text), keys)
    assert (near and near.text) == expected


def test_a_pattern_that_matches_nothing_names_what_was_meant() -> None:
    with pytest.raises(UsageError) as caught:
        require_match(Pattern.parse("classifier.*"), KEYS, "--drop", "my model.pth")
    assert caught.value.message == '--drop "classifier.*" matches none of the 12 keys'
    assert caught.value.hint == "did you mean \"fc.*\" (2 keys)?   list all: ckptool inspect 'my model.pth'"
    assert caught.value.path == Path("my model.pth")
    assert require_match(Pattern.parse("fc"), KEYS, "--drop") == ["fc.weight", "fc.bias"]


def test_wrapper_prefixes() -> None:
    assert wrapper_prefix(["module.fc.weight", "module.fc.bias"]) == "module."
    assert wrapper_prefix(["_orig_mod.module.a.b", "_orig_mod.module.a.c"]) == "_orig_mod.module."
    assert wrapper_prefix(["module.fc.weight", "n_averaged"]) == ""
    assert wrapper_prefix(["se_module.fc.weight"]) == ""
    assert wrapper_prefix(["module"]) == wrapper_prefix([]) == ""
    assert strip_wrappers("module.a._orig_mod.b.module") == "a.b.module"
    assert strip_wrappers("encoder.se_module.fc.weight") == "encoder.se_module.fc.weight"


@given(st.lists(names, min_size=1))
def test_the_common_prefix_is_the_longest(keys: list[str]) -> None:
    prefix = common_prefix(keys)
    assert all(key.startswith(prefix) for key in keys)
    assert not prefix or prefix.endswith(".")
    longer = keys[0].find(".", len(prefix)) + 1
    assert not longer or not all(key.startswith(keys[0][:longer]) for key in keys)


def test_one_regex_matches_many_keys_fast() -> None:
    keys = [f"model.layers.{n}.mlp.experts.{m}.w1.weight" for n in range(100) for m in range(990)]
    for text in ("*.num_batches_tracked", "weight", "model.layers.{0-6,8-99}.mlp.*", "*.mlp.*.w1.*"):
        pattern = Pattern.parse(text)
        start = time.perf_counter()
        pattern.select(keys)
        assert time.perf_counter() - start < 1.0  # 0.05 s on an idle machine


def test_many_stars_on_a_long_hostile_key() -> None:
    start = time.perf_counter()
    assert not Pattern.parse("*a*a*a*a*a*b").matches("a" * 100_000)
    assert time.perf_counter() - start < 2.0


def test_regexes_of_the_user_are_taken_as_they_are() -> None:
    assert Pattern.parse("re:a|b.c").select(["a", "b\nc", "b.c.d", "ab.c"]) == ["a", "b\nc"]
    keys = ["a.a.q1", "q1", "b.q2"]
    for text in ("(?:a\\.)*q\\d", "(a\\.)+q[0-9]", "(.)\\.\\1\\.q1", ".*.*.*.*.*.*.*.*.*q1", "(?i)A.*"):
        assert Pattern.parse(f"re:{text}").select(keys) == [key for key in keys if re.fullmatch(text, key)]


@pytest.mark.parametrize(
    "text",
    [
        "{*,*}" * 12 + "b",
        "*{a,aa}" * 20 + "b",
        "{a,aa}" * 100 + "b",
        "{a,?}" * 100 + "b",
        "{{a,aa},{a,?}*}" * 30 + "b",
        "{1-100,1..99,*}" * 30 + "b",
        "{a*,*a}{b*,*b}" * 40 + "d",
        "*?" * 500 + "b",
        "?*[a]*" * 200 + "b",
        "{" * 19 + "a,*" + "}" * 19 + "b",
    ],
)
def test_no_glob_takes_longer_than_its_key(text: str) -> None:
    keys = ["a" * 1000, "1a" * 500, "ab" * 100 + "c", "a" * 30]
    start = time.perf_counter()
    assert Pattern.parse(text).select(keys) == []
    assert time.perf_counter() - start < 5.0


def test_a_regex_that_would_not_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regexes, "PROCESS", regexes.Process())  # the time of the whole run is spent here
    for text in ("re:(a+)+$", "re:(a|aa)+b", "re:(.*)*b", "re:a*a*a*a*a*a*a*a*a*a*a*a*b", "re:(?:a?){60}a{60}"):
        start = time.perf_counter()
        with pytest.raises(UsageError, match="takes more than 2 seconds"):
            Pattern.parse(text).matches("a" * 3000 + "c")
        assert time.perf_counter() - start < 4.0


nested_globs = st.recursive(
    st.sampled_from(["a", "b", "*", "?", "[ab]", "[!a]", "1", "{1-12}", "{9..11}", "{01-10}"]),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map("".join)
        | st.lists(inner, min_size=1, max_size=3).map(lambda parts: "{" + ",".join(parts) + "}")
    ),
    max_leaves=8,
)


def reference(glob: str) -> str:
    """The regex that a glob of `nested_globs` stands for, with ranges written out."""
    words = {"*": ".*", "?": ".", "{": "(?:", "}": ")", ",": "|", "[!a]": "[^a]"}
    ranges = {"{1-12}": range(1, 13), "{9..11}": range(9, 12)}
    out = ""
    for piece in re.findall(r"\{[0-9]+(?:-|\.\.)[0-9]+\}|\[.*?\]|.", glob):
        if piece == "{01-10}":
            out += f"(?:{'|'.join(f'{number:02}' for number in range(1, 11))})"
        elif piece in ranges:
            out += f"(?:{'|'.join(map(str, ranges[piece]))})"
        else:
            out += words.get(piece, piece)
    return out


@given(glob=nested_globs, keys=st.lists(st.text("ab109", max_size=6), max_size=12))
def test_braces_mean_what_a_regex_means(glob: str, keys: list[str]) -> None:
    found = Pattern.parse(f"[a]*{glob}").select(keys)
    assert found == [key for key in keys if re.fullmatch("a.*" + reference(glob), key, re.DOTALL)]


def test_ranges_are_written_in_two_ways() -> None:
    keys = [f"layer.{number}.w" for number in range(20)]
    assert Pattern.parse("layer.{8..11}").select(keys) == Pattern.parse("layer.{8-11}.w").select(keys) == keys[8:12]


def test_patterns_have_a_longest_length() -> None:
    for text in ("a" * 100_000, "{0-999999999999999999}" * 400, "re:" + "a" * 100_000):
        with pytest.raises(UsageError, match="is too long"):
            Pattern.parse(text)


@given(glob=nested_globs, keys=st.lists(st.text("ab109.", max_size=6), max_size=12))
def test_an_outline_tells_which_keys_a_glob_cannot_mean(glob: str, keys: list[str]) -> None:
    pattern = Pattern.parse(glob)
    possible = set(pattern.possible(map(outline, keys)))
    assert all(outline(key) in possible for key in pattern.select(keys))
