"""`ckptool filter` as a user sees it: golden screens, what is written, errors, signals; and what all writers share."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from console import Run, runner, shell
from documents import record_documents, same_report
from safetensors.torch import load_file
from test_imports import modules_after

import ckptool
from ckptool.cli.values import in_order
from ckptool.core.errors import CkptError, PlanError, UsageError
from ckptool.core.sizes import parse_size

State = dict[str, torch.Tensor]


@pytest.fixture
def cli(fixtures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in the fixtures folder; gives (exit code, stdout, stderr)."""
    return runner(fixtures, monkeypatch, capsys)


@pytest.fixture
def state(fixtures: Path) -> State:
    found: State = torch.load(fixtures / "resnet18.pth", weights_only=True)
    return dict(found)


def equal(first: State, second: State) -> bool:
    return list(first) == list(second) and all(torch.equal(first[key], second[key]) for key in first)


SCREENS = {
    "drop": ["resnet18.pth", "--drop", "fc.*", "--dtype", "bf16"],
    "keep": ["resnet18.pth", "--keep", "layer1", "--keep", "fc", "--drop", "num_batches_tracked"],
    "convert": ["resnet18.pth"],
    "training": ["training.ckpt", "--drop", "module.fc.*"],
    "ema": ["training.ckpt", "--ema", "--only-weights"],
    "verbose": ["tuned.safetensors", "--keep", "fc", "--keep", "bn1", "--dtype", "f16", "-v"],
}


@pytest.mark.parametrize("name", SCREENS)
def test_screens(name: str, cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = record_documents(monkeypatch)
    for columns in (80, 160):
        code, out, err = cli("filter", *SCREENS[name], columns=columns)
        assert (code, err) == (0, "")
        assert out.splitlines()[-1] == "nothing written; add -o PATH"
        same_report(f"filter-{name}", columns, out, documents)


def test_printed_patterns_mean_the_keys_counted(cli: Run, state: State) -> None:
    _, out, _ = cli("filter", "resnet18.pth", "--drop", "*bn1*", "--drop", "layer4.1")
    rows = re.findall(r"^[=\-]  (\S.*?) {2,}(\d+)  ", out, re.MULTILINE)
    assert sum(int(many) for _, many in rows) == len(state)
    assert [pattern for pattern, _ in rows][-1] == "other keys"
    for pattern, many in rows[:-1]:
        assert len(ckptool.plan_filter("resnet18.pth", [("keep", pattern)]).steps) == int(many), pattern


def test_preview_and_plan_write_nothing(cli: Run, fixtures: Path) -> None:
    before = sorted(path.name for path in fixtures.iterdir())
    code, out, _ = cli("filter", "resnet18.pth", "--drop", "fc")
    assert (code, out.splitlines()[-1]) == (0, "nothing written; add -o PATH")
    assert sorted(path.name for path in fixtures.iterdir()) == before


# ---------------------------------------------------------------------------------------------- what is written


def test_cast_and_dropped_as_torch_would(cli: Run, fixtures: Path, state: State) -> None:
    code, out, err = cli("filter", "resnet18.pth", "--drop", "fc.*", "--dtype", "bf16", "-o", "body.safetensors")
    assert (code, err) == (0, "")
    last = out.splitlines()[-1]
    assert re.fullmatch(r"wrote body\.safetensors  33\.\d kB  \d+\.\d s", last)
    cast = {
        key: tensor.bfloat16() if tensor.is_floating_point() else tensor
        for key, tensor in state.items()
        if not key.startswith("fc.")
    }
    written = load_file(fixtures / "body.safetensors")
    assert written.keys() == cast.keys()
    assert all(torch.equal(written[key], cast[key]) and written[key].dtype == cast[key].dtype for key in cast)


@pytest.mark.parametrize("order", ["keep-last", "drop-last"])
def test_the_later_of_keep_and_drop_wins(order: str, cli: Run, fixtures: Path) -> None:
    keep, drop = ["--keep=fc.bias"], ["--drop", "fc"]
    options = drop + keep if order == "keep-last" else ["--keep", "fc", *keep, *drop, "--keep", "bn1"]
    assert cli("filter", *options[:2], "resnet18.pth", *options[2:], "-o", "out.pth")[0] == 0
    found = torch.load(fixtures / "out.pth", weights_only=True)
    if order == "keep-last":
        assert "fc.bias" in found
        assert "fc.weight" not in found
        assert len(found) == 121
    else:
        assert [key.split(".")[0] for key in found] == ["bn1"] * 5


@pytest.mark.parametrize("target", ["copy.pth", "copy.pt", "copy.bin", "copy.safetensors", "copy"])
def test_converts_to_every_format(target: str, cli: Run, fixtures: Path, state: State) -> None:
    assert cli("filter", "shards-bin", "-o", target)[0] == 0
    assert cli("diff", "resnet18.pth", target) == (0, "identical: 122 tensors, 54.1 kB compared\n", "")


def test_shards_are_as_small_as_asked(cli: Run, fixtures: Path) -> None:
    code, out, _ = cli("filter", "resnet18.pth", "-o", "out", "--max-shard", "20kB")
    assert code == 0
    assert re.search(r"^wrote out  \d files  ", out, re.MULTILINE)
    index = json.loads((fixtures / "out" / "model.safetensors.index.json").read_text())
    shards = {name: load_file(fixtures / "out" / name) for name in set(index["weight_map"].values())}
    assert len(shards) > 2
    for tensors in shards.values():
        assert sum(tensor.nbytes for tensor in tensors.values()) <= 20_000


def test_what_lies_beside_the_weights_stays(cli: Run, fixtures: Path) -> None:
    code, out, _ = cli("filter", "training.ckpt", "--drop", "num_batches_tracked", "-o", "out.ckpt", "--drop-optimizer")
    assert code == 0
    assert "left out: optimizer" in out
    assert "kept beside the weights: epoch, arch" in out
    old = torch.load(fixtures / "training.ckpt", weights_only=False)
    new = torch.load(fixtures / "out.ckpt", weights_only=False)
    assert list(new) == [key for key in old if key != "optimizer"]
    assert (new["epoch"], new["args"], new["lr_scheduler"]) == (old["epoch"], old["args"], old["lr_scheduler"])
    assert equal(new["model_ema"], old["model_ema"])
    assert len(new["state_dict"]) == 102


def test_only_weights_is_a_flat_state_dict(cli: Run, fixtures: Path) -> None:
    code, out, _ = cli("filter", "training.ckpt", "--ema", "--only-weights", "-o", "ema.pth")
    assert code == 0
    assert "left out: epoch, arch" in out
    found = torch.load(fixtures / "ema.pth", weights_only=True)
    assert equal(found, torch.load(fixtures / "training.ckpt", weights_only=False)["model_ema"])


def test_a_second_set_of_weights_is_said_to_stay_second(cli: Run) -> None:
    code, out, _ = cli("filter", "training.ckpt", "--ema", "-o", "ema.pth", "--keep-optimizer-as-is")
    assert code == 0
    assert 'keeps other weights beside "model_ema": state_dict' in out
    assert "keeps other weights" not in cli("filter", "training.ckpt", "--ema", "-o", "ema.safetensors")[1]


def test_what_safetensors_cannot_hold_is_said(cli: Run) -> None:
    _, out, _ = cli("filter", "training.ckpt", "-o", "out.safetensors", columns=160)
    assert "left behind: epoch, arch, best_acc1, args, model_ema, optimizer, lr_scheduler" in out
    assert "(safetensors holds tensors only)" in out


def test_the_only_file_of_a_folder_is_named(cli: Run, fixtures: Path) -> None:
    _, out, _ = cli("filter", "resnet18.pth", "-o", "folder/")
    assert "\nwrote folder/model.safetensors  " in out
    assert (fixtures / "folder" / "model.safetensors").is_file()


@pytest.mark.parametrize("how", ["clone", "keep-first"])
def test_tied_tensors_are_said_aloud(how: str, cli: Run, fixtures: Path) -> None:
    weight = torch.randn(3, 2)
    torch.save({"embed.weight": weight, "head.weight": weight}, fixtures / "tied.pth")
    code, out, _ = cli("filter", "tied.pth", "-o", "out.safetensors", "--tied", how)
    assert code == 0
    assert "1 tied tensor" in out
    assert sorted(load_file(fixtures / "out.safetensors")) == ["embed.weight", "head.weight"][: 1 + (how == "clone")]


# ---------------------------------------------------------------------------------------------- errors


ERRORS = {
    "near miss": (["resnet18.pth", "--drop", "classifier.*"], r'matches none of the 122 keys\n.*"fc\.\*" \(2 keys\)'),
    "input": (["resnet18.pth", "-o", "resnet18.pth", "--force"], "is also an input"),
    "link": (["resnet18.pth", "-o", "link.pth", "--force"], "is also an input"),
    "exists": (["resnet18.pth", "-o", "training.ckpt"], "training.ckpt exists\n  help: --force"),
    "ending": (["resnet18.pth", "-o", "out.h5"], "not a format that is written"),
    "folder": (["resnet18.pth", "-o", "no/out.pth"], "the folder no does not exist"),
    "shard of a file": (["resnet18.pth", "-o", "out.pth", "--max-shard", "5GB"], "--max-shard-size makes a folder"),
    "stream": (["resnet18.pth", "-o", "-"], "not a stream"),
    "size": (["resnet18.pth", "--max-shard", "5 parsecs"], '"5 parsecs" is not a size'),
    "dtype": (["resnet18.pth", "--dtype", "int8"], '"int8" is not a float dtype'),
    "no average": (["resnet18.pth", "--ema"], "holds no moving average"),
    "two selections": (["training.ckpt", "--ema", "--select", "model_ema"], "exclude each other"),
    "both": (["training.ckpt", "--drop-optimizer", "--keep-optimizer-as-is"], "exclude each other"),
    "dangerous": (["hostile/system.pth", "-o", "x.pth"], r"posix\.system"),
    "unread": (["hostile/pointer.safetensors"], "Git LFS pointer"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_one_voice_and_write_nothing(name: str, cli: Run, fixtures: Path) -> None:
    (fixtures / "link.pth").symlink_to("resnet18.pth")
    before = {path: path.read_bytes() for path in fixtures.iterdir() if path.is_file()}
    arguments, said = ERRORS[name]
    code, _, err = cli("filter", *arguments, columns=160)
    assert code == 2
    assert err.startswith("error: ")
    assert re.search(said, err), err
    assert {path: path.read_bytes() for path in fixtures.iterdir() if path.is_file()} == before
    code, out, _ = cli("filter", *arguments, "--json")
    assert code == 2
    assert json.loads(out)["schema"] in ("ckptool.error/1", "ckptool.plan/1")


def test_force_replaces(cli: Run, fixtures: Path) -> None:
    assert cli("filter", "resnet18.pth", "--keep", "fc", "-o", "training.ckpt", "--force")[0] == 0
    assert list(torch.load(fixtures / "training.ckpt", weights_only=True)) == ["fc.weight", "fc.bias"]


def test_a_missing_permission_is_said(cli: Run, fixtures: Path) -> None:
    done = shell("ckptool filter resnet18.pth -o /dev/null/x.pth", fixtures)
    assert done.returncode == 2
    assert b"error: the folder /dev/null does not exist" in done.stderr


def test_a_full_disk_leaves_nothing(fixtures: Path) -> None:
    # a limit on file sizes is a disk that is full; bytecode must not be cut by it
    limited = "ulimit -f 20; ckptool filter resnet18.pth -o big.safetensors"
    done = shell(limited, fixtures, PYTHONDONTWRITEBYTECODE="1")
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: big.safetensors cannot be written")
    assert not [path for path in fixtures.iterdir() if "big" in path.name]


# ---------------------------------------------------------------------------------------------- machines


def test_json_holds_the_plan_and_what_was_written(cli: Run, fixtures: Path) -> None:
    code, out, err = cli("filter", "resnet18.pth", "--drop", "fc", "--dtype", "bf16", "-o", "b.safetensors", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["schema"] == "ckptool.plan/1"
    assert found["inputs"][0]["path"] == "resnet18.pth"
    assert found["summary"] == {"tensors": 120, "bytes": 23740, "dropped": 2}
    assert found["steps"][0] == {
        "target": {"key": "conv1.weight", "dtype": "bfloat16", "shape": [2, 3, 7, 7]},
        "sources": [{"input": 0, "key": "conv1.weight"}],
        "op": "bf16",
        "why": "--dtype bfloat16",
    }
    counters = [step for step in found["steps"] if step["target"]["key"].endswith("num_batches_tracked")]
    assert {step["op"] for step in counters} == {"copy"}
    assert found["dropped"] == [{"input": 0, "key": f"fc.{name}", "why": '--drop "fc"'} for name in ("weight", "bias")]
    assert (found["problems"], found["exit_code"]) == ([], 0)
    assert found["written"]["bytes"] == (fixtures / "b.safetensors").stat().st_size
    assert found["written"]["files"] == ["b.safetensors"]
    assert json.loads(cli("filter", "resnet18.pth", "--json")[1])["written"] is None


def unknown_numbers(folder: Path) -> Path:
    """training.ckpt with a parameter that its optimizer does not have: the numbers may be other keys."""
    value = torch.load(folder / "training.ckpt", weights_only=False)
    value["state_dict"]["module.scale"] = torch.ones(2)
    torch.save(value, folder / "unknown.ckpt")
    return folder / "unknown.ckpt"


@pytest.mark.parametrize("output", [[], ["-o", "x.pth"], ["-o", "x.pth", "--dry-run"]], ids=["none", "named", "dry"])
def test_json_of_a_plan_with_problems_is_one_document(cli: Run, fixtures: Path, output: list[str]) -> None:
    unknown_numbers(fixtures)
    code, out, err = cli("filter", "unknown.ckpt", "--drop", "module.fc", *output, "--json")
    assert code == 2
    assert err.startswith("error: optimizer does not say")
    found = json.loads(out)
    assert (found["exit_code"], found["written"]) == (2, None)
    assert found["problems"][0]["message"].startswith("optimizer does not say")


HOSTILE = [
    "\x1b[2J\x1b[31mred",
    "a|b`c",
    "line\nbreak",
    "\u202egnp",
    "::error::x",
    "<img src=x>",
    "\ud800",
    "重み.w" * 60,
]


@pytest.mark.parametrize(
    "options", [[], ["-v"], ["--format", "markdown"], ["--json"]], ids=["text", "-v", "md", "json"]
)
def test_hostile_names_are_data(options: list[str], cli: Run, fixtures: Path) -> None:
    torch.save({name: torch.ones(2) for name in HOSTILE}, fixtures / "odd.pth")
    drop = "re:.*red"
    code, out, err = cli("filter", "odd.pth", "--drop", drop, "-o", "out.pth", *options, columns=80)
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert not [line for line in out.splitlines() if line.startswith("::")]
    if options == ["--json"]:
        assert [step["target"]["key"] for step in json.loads(out)["steps"]] == HOSTILE[1:]
    assert list(torch.load(fixtures / "out.pth", weights_only=True)) == HOSTILE[1:]


def test_markdown_is_a_table(cli: Run) -> None:
    code, out, _ = cli("filter", "resnet18.pth", "--drop", "fc.*", "--format", "markdown")
    assert code == 0
    assert out.startswith("### ckptool filter `resnet18.pth`\n")
    rows = [line for line in out.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1
    assert any("`fc.*`" in line and "dropped by" in line for line in rows)


def test_a_pipe_is_wide_and_not_elided(fixtures: Path) -> None:
    torch.save({"a." + "b" * 300: torch.ones(1), "c": torch.ones(1)}, fixtures / "long.pth")
    done = shell("ckptool filter long.pth --drop c | cat", fixtures)
    assert b"a." + b"b" * 300 in done.stdout


def test_a_reader_that_leaves_does_not_stop_the_writing(fixtures: Path) -> None:
    done = shell("ckptool filter resnet18.pth -o out.safetensors | head -n 1", fixtures)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(load_file(fixtures / "out.safetensors")) == 122


# ---------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
@pytest.mark.parametrize("target", ["out.safetensors", "out"])
def test_signals_leave_nothing_behind(name: str, target: str, fixtures: Path) -> None:
    """The signal comes when the first bytes have been written."""
    code = (
        "import os, signal, sys, time\n"
        "from ckptool.cli import progress\n"
        "sent = []\n"
        "def send(self, done, total):\n"  # and the work waits until the main thread has seen it
        f"    sent or (sent.append(1), os.kill(os.getpid(), signal.{name}), time.sleep(1))\n"
        "progress.Progress.__call__ = send\n"
        "from ckptool.cli.app import run\n"
        f"sys.exit(run(['filter', 'resnet18.pth', '--dtype', 'bf16', '-o', '{target}', '--max-shard', '5kB'][:6]))\n"
    )
    before = sorted(fixtures.iterdir())
    done = subprocess.run([sys.executable, "-c", code], cwd=fixtures, capture_output=True, check=False, text=True)
    assert done.returncode == 128 + signal.Signals[name], done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(fixtures.iterdir()) == before


def test_ignored_signals_stay_ignored(fixtures: Path) -> None:
    done = shell("trap '' HUP TERM; ckptool filter resnet18.pth -o out.pth -q", fixtures)
    assert done.returncode == 0
    assert len(torch.load(fixtures / "out.pth", weights_only=True)) == 122


# ---------------------------------------------------------------------------------------------- options


def test_order_of_options() -> None:
    parsed = {"--keep": ["a", "c", "--drop"], "--drop": ["b"]}
    tokens = ["filter", "--keep", "a", "x", "--drop=b", "--keep=c", "-o", "--keep", "--keep", "--drop"]
    assert in_order(tokens, parsed, {"-o"}) == [
        ("--keep", "a"),
        ("--drop", "b"),
        ("--keep", "c"),
        ("--keep", "--drop"),
    ]
    assert in_order(["--keep", "a", "--", "--drop", "b"], {"--keep": ["a"], "--drop": []}) == [("--keep", "a")]
    with pytest.raises(UsageError, match="order"):
        in_order([], parsed)


@pytest.mark.parametrize(
    ("text", "size"),
    [("5GB", 5 * 10**9), ("500MB", 5 * 10**8), ("1GiB", 2**30), ("1.5 KiB", 1536), ("700", 700), ("2tb", 2 * 10**12)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, least=1) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1e9", "5 XB", "0", "0.2B", "nan", "1_0MB", "٥GB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text, least=1)


# ---------------------------------------------------------------------------------------------- Python


def test_from_python(fixtures: Path, state: State) -> None:
    plan = ckptool.plan_filter(fixtures / "resnet18.pth", [("drop", "fc.*"), ("keep", "fc.bias")])
    written = plan.apply(fixtures / "out.pth")
    assert (written.tensors, written.files) == (121, (fixtures / "out.pth",))
    del state["fc.weight"]
    assert equal(torch.load(written.path, weights_only=True), state)
    with pytest.raises(CkptError, match="exists"):
        plan.apply(fixtures / "out.pth")
    assert plan.apply(fixtures / "out.pth", force=True).tensors == 121


def test_problems_stop_it_from_python(fixtures: Path) -> None:
    plan = ckptool.plan_filter(unknown_numbers(fixtures), [("drop", "module.fc")])
    with pytest.raises(PlanError, match="does not say which"):
        plan.apply(fixtures / "out.pth")
    assert not (fixtures / "out.pth").exists()
    assert plan.apply(fixtures / "out.safetensors").tensors == 121
    plan.apply(fixtures / "out.pth", drop_optimizer=True)
    assert "optimizer" not in torch.load(fixtures / "out.pth", weights_only=False)
    plan.apply(fixtures / "as-is.pth", optimizer_as_is=True)
    assert "optimizer" in torch.load(fixtures / "as-is.pth", weights_only=False)


# ---------------------------------------------------------------------------------------------- what it costs


LIGHT = {
    "preview": ["filter", "training.ckpt", "--drop", "module.fc"],
    "filter": ["filter", "resnet18.pth", "--drop", "fc", "-o", "out.safetensors"],
    "to torch": ["filter", "tuned.safetensors", "-o", "out.pth", "--json"],
    "rename": ["remap", "training.ckpt", "-r", "strip-wrappers", "-o", "out.ckpt"],
    "union": ["merge", "resnet18.pth", "tuned.safetensors", "-o", "out.pth"],
    "lists": ["remap", "--recipes"],
}


@pytest.mark.parametrize("name", LIGHT)
def test_moving_bytes_needs_neither_numpy_nor_torch(name: str, fixtures: Path) -> None:
    assert not modules_after(*LIGHT[name], cwd=fixtures) & {"numpy", "ml_dtypes", "torch", "torchvision", "safetensors"}


def test_computing_needs_no_torch(fixtures: Path) -> None:
    found = modules_after("merge", "resnet18.pth", "shards", "--method", "slerp", "-o", "out.pth", cwd=fixtures)
    assert "numpy" in found
    assert not found & {"torch", "torchvision", "safetensors"}


def test_nothing_is_left_says_what_to_do(cli: Run) -> None:
    code, _, err = cli("filter", "resnet18.pth", "--drop", "*")
    assert code == 2
    assert "help: leave out less; the keys: ckptool inspect resnet18.pth" in err


def test_an_option_that_changes_nothing_is_said_in_the_report(cli: Run) -> None:
    code, out, err = cli("filter", "resnet18.pth", "--dequantize")
    assert (code, err) == (0, "")
    assert out.startswith("ready: ")
    assert "note: --dequantize changes nothing: no tensor of resnet18.pth is quantized" in out


@pytest.mark.parametrize(("options", "is_whole"), [(["--dtype", "bf16"], True), (["--keep", "fc"], False)])
def test_a_part_is_not_to_be_published(options: list[str], is_whole: bool, tmp_path: Path, cli: Run) -> None:
    _, out, _ = cli("filter", "resnet18.pth", *options, "-o", str(tmp_path / "out"))
    assert ("publish it: hf upload" in out) == is_whole


@pytest.mark.parametrize(
    "words",
    [
        "inspect resnet18.pth --flat --depth 1",
        "inspect resnet18.pth --json --format csv",
        "diff resnet18.pth shards --keys-only --tolerance rel=1",
        "diff resnet18.pth shards --emit recipe --format markdown",
        "diff resnet18.pth shards --emit recipe --json",
        "filter training.ckpt --only-weights --keep-optimizer-as-is",
        "filter training.ckpt --only-weights --keep-unknown",
        "remap training.ckpt -r strip-wrappers --drop-optimizer --keep-optimizer-as-is",
        "remap deit.pth --auto --like vit-hf.safetensors --check --save-recipe out.toml",
        "merge resnet18.pth --lora shards --intersect",
        "merge resnet18.pth --patch shards --union",
        "transplant resnet18.pth --into shards --only-loaded --init fc=zeros",
        "check resnet18.pth --format github --json",
    ],
)
def test_no_option_is_ignored_in_silence(words: str, cli: Run, fixtures: Path) -> None:
    before = sorted(fixtures.iterdir())
    code, _, err = cli(*words.split())
    assert code == 2
    assert "exclude each other" in err and "help: " in err
    assert sorted(fixtures.iterdir()) == before
