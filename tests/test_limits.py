"""Arguments that ask for more than there is: one clear error within seconds, and no more memory than a run takes."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

_MEMORY = 2 << 30  # bytes of address space; ckptool with numpy maps less than half of it


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file({"a": torch.ones(1 << 15, 1), "b": torch.ones(1, 1 << 15)}, tmp_path / "vectors.safetensors")
    keys = {f"layer.{'9' * 5000}.weight": torch.ones(2, 2), "layer.1.weight": torch.ones(2, 2)}
    save_file(keys, tmp_path / "digits.safetensors")
    save_file({"x.x.x.x.x": torch.ones(1)}, tmp_path / "x.safetensors")
    return tmp_path


def _busy() -> float:
    """Seconds that all processes which have ended took of a processor."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(folder: Path, *arguments: str | bytes) -> tuple[int, str]:
    """Exit code and stderr, of a process that may not take more than its share."""
    started = _busy()
    done = subprocess.run(
        [sys.executable, "-m", "ckptool", *arguments],
        cwd=folder,
        capture_output=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY)),
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert _busy() - started < 20  # 1 s on an idle machine
    said = done.stderr.decode("utf-8", "replace")
    assert "Traceback" not in said and "this is a bug" not in said
    return done.returncode, said


def stages(rule: str) -> list[str]:
    return [word for _ in range(30) for word in ("-r", rule, "-r", "---")]


@pytest.mark.parametrize(
    ("file", "arguments", "message"),
    [
        ("vectors", ["-r", "a, b -> c | = $1 @ $2"], "far larger than the tensors"),
        ("vectors", ["-r", "a, b -> c | = sum($1 - $2)"], "far larger than the tensors"),
        ("x", stages("{m**} -> {m**}.{m**}"), "a name would have"),
        ("x", stages(".x. -> .x.x."), ""),
        ("x", stages("{m**} -> {m**}.y, {m**}.z | i -> i"), "a stage would make more than"),
        (
            "x",
            ["-r", "{m**} -> {a=1..100000}.{b=1..100000}.{m**} | i -> i"],
            "would make 10,000,000,000",
        ),
        ("x", ["-r", "{m**} -> " + "{m**}." * 200 + "w"], "more than 100 captures"),
        ("x", ["-r", "a" * 50_000 + " -> b"], "more than any rule needs"),
        ("x", ["-r", "a.{0-999999} -> b"], "more than 10,000 numbers"),
        ("x", ["-r", "x.{i=1..999999999} -> b.{i}"], "an invalid range"),
        ("digits", ["-r", "layer.{e}.weight -> l | o i -> e o i"], "has a number that no list is as long as"),
        ("digits", ["-r", "layer.{i+1}.weight -> l.{i}"], ""),
        ("digits", ["-r", "layer.{s=1..3}.weight -> l.{s}"], ""),
    ],
)
def test_a_recipe_costs_no_more_than_its_inputs(file: str, arguments: list[str], message: str, folder: Path) -> None:
    code, said = run(folder, "remap", f"{file}.safetensors", *arguments)
    assert code in (0, 2)
    assert message in said
    assert (code == 2) >= bool(message)


@pytest.mark.parametrize("name", [b"o\xff.safetensors", b"o\xff.pth", "é.safetensors".encode(), b"o\xfe"])
def test_an_output_may_have_any_name(name: bytes, folder: Path) -> None:
    shards = [b"--max-shard", b"1kB"] if b"." not in name else []
    code, said = run(folder, b"filter", b"x.safetensors", b"-o", name, *shards)
    assert (code, said) == (0, "")
    assert os.path.lexists(os.fsencode(folder) + b"/" + name)


@pytest.mark.parametrize(
    "arguments",
    [
        [b"check", b"x.safetensors", b"--policy", b"a\xffb.toml"],
        [b"check", b"x.safetensors", b"--policy", b"/dev/zero"],
        [b"filter", b"x.safetensors", b"--keep", b"{1.." + b"9" * 5000 + b"}"],
        [b"filter", b"x.safetensors", b"--keep", b"re:" + b"(" * 3000],
        [b"remap", b"x.safetensors", b"-r", b"\xff -> \xfe"],
        [b"remap", b"x.safetensors", b"-r", b"/dev/zero"],
        [b"inspect", b"\xff\xfe"],
    ],
)
def test_odd_arguments_get_one_error(arguments: list[bytes], folder: Path) -> None:
    code, said = run(folder, *arguments)
    assert code == 2
    assert said.startswith("error: ")
