"""The lock file: a text that comes back as it went, and says what changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ckptool.commands.checks.finding import Report
from ckptool.commands.checks.lock_file import Locked, format_lock, parse_lock, read_lock
from ckptool.commands.checks.policy import read_policy
from ckptool.commands.checks.run import run_checks
from ckptool.core.errors import OutputError, UsageError

TEXTS = st.text(st.characters(), max_size=12) | st.sampled_from(
    ["", "\\", "\\n", "[a]", "#", "a\tb", "a\nb", "\r", "\u2028", "\x85", "\ud800", "\u202e", "x\\x41"]
)
LOCKED = st.builds(
    Locked,
    st.sampled_from(["f32[]", "f8_e4m3fn[2,3]", "i64[0]", "qi8[1]"]),
    st.sampled_from(["-", "0" * 64, hashlib.sha256(b"x").hexdigest()]),
)


@given(st.dictionaries(TEXTS, st.dictionaries(TEXTS, LOCKED, max_size=5), max_size=4))
def test_round_trip(sections: dict[str, dict[str, Locked]]) -> None:
    text = format_lock(sections)
    assert parse_lock(text) == sections
    assert format_lock(parse_lock(text)) == text
    assert len(text.splitlines()) == 1 + len(sections) + sum(map(len, sections.values()))  # nothing breaks a line
    text.encode()


def test_text_is_sorted_for_review() -> None:
    one = Locked("f32[1]", "0" * 64)
    text = format_lock({"b.pth": {"l.10": one, "l.9": one}, "a10.pth": {}, "a9.pth": {}})
    assert [line.partition("\t")[0] for line in text.splitlines()[1:]] == [
        "[a9.pth]",
        "[a10.pth]",
        "[b.pth]",
        "l.9",
        "l.10",
    ]
    assert text.splitlines()[0].startswith("# ckptool lock 1")


GOOD = "# ckptool lock 1: about\n[a.pth]\nw\tf32[2]\t-\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a lock file of ckptool"),
        ("[a.pth]\nw\tf32[2]\t-\n", "is not a lock file of ckptool"),
        ("# ckptool lock 2: newer\n", "version 2, known is 1"),
        (GOOD + "<<<<<<< HEAD\n", ":4: not a line"),
        (GOOD + "w\tf32[2]\t-\n", ":4: not a line"),
        (GOOD + "[a.pth]\n", ":4: not a line"),
        (GOOD + "v\tf32[2]\tabc\n", ":4: not a line"),
        (GOOD + "v\tf32[2]\n", ":4: not a line"),
        (GOOD + "v\\q\tf32[2]\t-\n", ":4: not a line"),
        ("# ckptool lock 1\nw\tf32[2]\t-\n", ":2: not a line"),
    ],
)
def test_a_damaged_lock_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_lock(text, "w.lock")


def test_comments_and_empty_lines_are_fine() -> None:
    assert parse_lock(GOOD.replace("\n[", "\n\n# a note\n[")) == {"a.pth": {"w": Locked("f32[2]", "-")}}


# ---------------------------------------------------------------------------------------------------- the rule


@pytest.fixture
def folder(fixtures: Path) -> Path:
    (fixtures / "ckptool.toml").write_text('lock = "weights.lock"\n')
    return fixtures


def check(folder: Path, *names: str, update: bool = False) -> Report:
    policy = read_policy(folder / "ckptool.toml")
    return run_checks([folder / name for name in names], policy, rules=["lock", "policy"], update_lock=update)


def test_digests_are_those_of_the_bytes_that_torch_loads(folder: Path) -> None:
    check(folder, "resnet18.pth", update=True)
    section = read_lock(folder / "weights.lock")["resnet18.pth"]
    state = torch.load(folder / "resnet18.pth", weights_only=True)
    assert {key: locked.digest for key, locked in section.items()} == {
        key: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for key, tensor in state.items()
    }
    assert section["conv1.weight"].spec == "f32[2,3,7,7]"


def test_a_locked_file_is_clean_and_an_unknown_one_is_not(folder: Path) -> None:
    (finding,) = check(folder, "tuned.safetensors").findings
    assert finding.message == "weights.lock does not mention this checkpoint"
    assert finding.level == "error" and finding.policy is not None and finding.policy.line == 1
    report = check(folder, "tuned.safetensors", "shards", update=True)
    assert [(outcome.status, outcome.text) for outcome in report.outcomes] == [("ok", "written")] * 2
    assert not report.findings
    assert not check(folder, "tuned.safetensors", "shards").findings
    assert list(read_lock(folder / "weights.lock")) == ["shards/model.safetensors.index.json", "tuned.safetensors"]


def test_a_conversion_changes_only_the_name(folder: Path) -> None:
    check(folder, "resnet18.pth", "shards", "shards-bin", update=True)
    sections = read_lock(folder / "weights.lock")
    assert sections["resnet18.pth"] == sections["shards/model.safetensors.index.json"]
    assert sections["resnet18.pth"] == sections["shards-bin/pytorch_model.bin.index.json"]


def test_every_kind_of_difference_is_named(folder: Path) -> None:
    path = folder / "tuned.safetensors"
    check(folder, "tuned.safetensors", update=True)
    state = load_file(path)
    state["conv1.weight"][0, 0, 0, 0] += 1
    state["fc.bias"] = state["fc.bias"].half()
    state["new\x1b[31m.weight"] = state.pop("bn1.bias")
    save_file(state, path)
    (finding,) = check(folder, "tuned.safetensors").findings
    assert finding.message == "not what weights.lock says: 2 changed, 1 added, 1 removed"
    assert [" ".join(line.split()) for line in finding.details] == [
        "bn1.bias removed f32[2]",
        "conv1.weight changed other values",
        "fc.bias changed f32[10] -> f16[10]",
        "new\x1b[31m.weight added f32[2]",
    ]
    assert finding.help.startswith("if it is meant: ckptool check --update-lock ")


def test_an_update_leaves_other_sections_alone(folder: Path) -> None:
    check(folder, "tuned.safetensors", "resnet18.pth", update=True)
    before = read_lock(folder / "weights.lock")
    save_file({"w": torch.zeros(1)}, folder / "tuned.safetensors")
    check(folder, "tuned.safetensors", update=True)
    after = read_lock(folder / "weights.lock")
    assert after["resnet18.pth"] == before["resnet18.pth"]
    assert list(after["tuned.safetensors"]) == ["w"]


def test_a_file_that_cannot_be_read_keeps_its_section(folder: Path) -> None:
    check(folder, "tuned.safetensors", "resnet18.pth", update=True)
    before = (folder / "weights.lock").read_bytes()
    (folder / "tuned.safetensors").write_bytes(b"<html>")
    check(folder, "tuned.safetensors", update=True)
    assert (folder / "weights.lock").read_bytes() == before


def test_an_update_without_changes_does_not_touch_the_file(folder: Path) -> None:
    check(folder, "tuned.safetensors", update=True)
    before = (folder / "weights.lock").stat().st_ino
    check(folder, "tuned.safetensors", update=True)
    assert (folder / "weights.lock").stat().st_ino == before


def test_an_update_needs_a_lock_and_a_folder(folder: Path) -> None:
    (folder / "ckptool.toml").write_text('max-size = "1MB"\n')
    with pytest.raises(UsageError, match="names no lock file"):
        check(folder, "tuned.safetensors", update=True)
    (folder / "ckptool.toml").write_text('lock = "none/weights.lock"\n')
    with pytest.raises(OutputError):
        check(folder, "tuned.safetensors", update=True)


def test_differences_can_be_allowed(folder: Path) -> None:
    check(folder, "tuned.safetensors", update=True)
    state = load_file(folder / "tuned.safetensors")
    state["bn1.num_batches_tracked"] += 1
    save_file(state, folder / "tuned.safetensors")
    (folder / "ckptool.toml").write_text('lock = "weights.lock"\nallow.lock = ["*.num_batches_tracked"]\n')
    assert not check(folder, "tuned.safetensors").findings


def test_a_tensor_that_is_stored_twice_and_one_without_values(folder: Path) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    state = {"a": weight, "b": weight, "t": weight.t(), "meta": torch.empty(3, device="meta"), "empty": torch.empty(0)}
    torch.save(state, folder / "odd.pth")
    check(folder, "odd.pth", update=True)
    section = read_lock(folder / "weights.lock")["odd.pth"]
    assert section["a"] == section["b"] == Locked("f32[2,3]", hashlib.sha256(weight.numpy().tobytes()).hexdigest())
    assert section["t"].digest == hashlib.sha256(weight.t().contiguous().numpy().tobytes()).hexdigest()
    assert section["meta"] == Locked("f32[3]", "-")
    assert section["empty"].digest == hashlib.sha256(b"").hexdigest()
    assert not check(folder, "odd.pth").findings
