"""`ckptool inspect` as a user sees it: golden screens, options, formats, hostile names, exit codes."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from console import Run, runner, shell
from documents import record_documents, same_report
from safetensors.torch import save_file

DATA = Path(__file__).parent / "data"


@pytest.fixture
def cli(fixtures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in the fixtures folder; gives (exit code, stdout, stderr)."""
    return runner(fixtures, monkeypatch, capsys)


SCREENS = {
    "resnet18": ["resnet18.pth"],
    "legacy": ["resnet18-102.pth"],
    "training": ["training.ckpt"],
    "shards": ["shards"],
    "depth": ["resnet18.pth", "--depth", "4"],
    "only": ["resnet18.pth", "--only", "layer4", "--only", "fc.bias"],
    "flat": ["tuned.safetensors", "--flat", "--sort", "size", "--only", "*.weight"],
    "size": ["resnet18.pth", "--sort", "size", "--depth", "1"],
    "stats": ["resnet18.pth", "--stats"],
    "ema": ["training.ckpt", "--select", "model_ema"],
    "names": ["hostile/names.safetensors", "--flat"],
    "system": ["hostile/system.pth"],
}


@pytest.mark.parametrize("name", SCREENS)
def test_screens(name: str, cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = record_documents(monkeypatch)
    for columns in (80, 160):
        code, out, err = cli("inspect", *SCREENS[name], columns=columns)
        assert (code, err) == (0, "")
        same_report(f"inspect-{name}", columns, out, documents)


@pytest.mark.parametrize("options", [[], ["--stats"]])
@pytest.mark.parametrize(
    "name", ["awq_gemm", "bnb_nf4_nested", "fp8_block_sharded", "gptq_v1_actorder", "mxfp4_gpt_oss"]
)
def test_quantized_weights_fit_a_narrow_screen(
    name: str, options: list[str], cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(DATA / "encodings")
    out = cli("inspect", name, *options, columns=80)[1]
    assert max(map(len, out.splitlines())) <= 80
    assert re.search(r"….*\[[\d,]+\]", out)  # the shape is seen


def test_a_pipe_gets_whole_names(cli: Run) -> None:
    _, out, _ = cli("inspect", "resnet18.pth")
    assert "{weight,bias,running_mean,running_var}" in out
    assert "\x1b" not in out


def test_json_says_what_torch_says(cli: Run, fixtures: Path) -> None:
    code, out, err = cli("inspect", "resnet18.pth", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["schema"] == "ckptool.inspect/1"
    state = torch.load(fixtures / "resnet18.pth", weights_only=True)
    assert [tensor["key"] for tensor in found["tensors"]] == list(state)
    for tensor in found["tensors"]:
        real = state[tensor["key"]]
        assert (tensor["dtype"], tensor["shape"]) == (str(real.dtype).removeprefix("torch."), list(real.shape))
        assert (tensor["elements"], tensor["bytes"]) == (real.numel(), real.numel() * real.itemsize)
        with (fixtures / tensor["file"]).open("rb") as file:
            file.seek(tensor["offset"])
            assert file.read(tensor["bytes"]) == bytes(real.contiguous().reshape(-1).view(torch.uint8))
    assert found["summary"]["tensors"] == 122
    assert found["summary"]["elements"] == sum(tensor.numel() for tensor in state.values())
    assert found["module_versions"]["bn1"] == 2
    assert found["unsafe_globals"] == []


def test_json_of_a_training_checkpoint(cli: Run) -> None:
    found = json.loads(cli("inspect", "training.ckpt", "--json")[1])
    assert found["file"]["selected"] == ["state_dict"]
    assert found["file"]["ema"] == "model_ema"
    assert found["extras"]["epoch"] == 2
    assert found["extras"]["optimizer"]["tensors"] == 62


def test_json_names_what_would_run(cli: Run) -> None:
    found = json.loads(cli("inspect", "hostile/system.pth", "--json")[1])
    assert found["unsafe_globals"] == ["posix.system"]


def test_ndjson_is_a_tensor_per_line_and_a_summary(cli: Run) -> None:
    *tensors, last = map(json.loads, cli("inspect", "shards", "--format", "ndjson")[1].splitlines())
    assert len(tensors) == 122
    assert last["summary"]["tensors"] == 122
    assert {tensor["file"] for tensor in tensors} == {f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)}


def test_lines_are_the_same_in_every_format(cli: Run, fixtures: Path) -> None:
    zipped = cli("inspect", "resnet18.pth", "--format", "lines")[1]
    assert zipped == cli("inspect", "shards", "--format", "lines")[1]
    assert zipped == cli("inspect", "shards-bin", "--format", "lines")[1]
    lines = [line.split("\t") for line in zipped.splitlines()]
    assert [key for key, _, _ in lines] == sorted(key for key, _, _ in lines)
    weight = torch.load(fixtures / "resnet18.pth", weights_only=True)["fc.weight"]
    digest = hashlib.sha256(bytes(weight.reshape(-1).view(torch.uint8))).hexdigest()
    assert ["fc.weight", "f32[100,16]", digest] in lines


def test_ties_and_odd_layouts_are_said(cli: Run, tmp_path: Path) -> None:
    weight = torch.randn(4, 8)
    state = {"head.weight": weight, "embed.weight": weight, "coo": torch.eye(4).to_sparse(), "view": weight.t()}
    torch.save(state, tmp_path / "tied.pth")
    code, out, _ = cli("inspect", str(tmp_path / "tied.pth"))
    assert code == 0
    assert "tied: head.weight = embed.weight\n" in out
    assert "f32[4,4] sparse" in out
    found = {
        tensor["key"]: tensor
        for tensor in json.loads(cli("inspect", str(tmp_path / "tied.pth"), "--json")[1])["tensors"]
    }
    assert {key: tensor["tied_to"] for key, tensor in found.items()} == {
        "head.weight": None, "embed.weight": "head.weight", "coo": None, "view": None,
    }  # fmt: skip
    lines = cli("inspect", str(tmp_path / "tied.pth"), "--format", "lines")[1]
    transposed = hashlib.sha256(weight.t().contiguous().numpy().tobytes()).hexdigest()
    assert f"view\tf32[8,4]\t{transposed}\n" in lines


def test_not_finite_numbers_stand_out(cli: Run, tmp_path: Path) -> None:
    torch.save({"a": torch.tensor([1.0, float("nan"), float("-inf")]), "n": torch.arange(5)}, tmp_path / "nan.pth")
    _, out, _ = cli("inspect", str(tmp_path / "nan.pth"), "--stats")
    assert "1 NaN, 1 Inf" in out.splitlines()[1]
    assert "warning: 1 NaN and 1 Inf in a (of 3)" in out
    assert "0 … 4" in out


def test_markdown_is_one_table_in_details(cli: Run) -> None:
    out = cli("inspect", "resnet18.pth", "--format", "markdown")[1]
    assert out.startswith("### ckptool inspect `resnet18.pth`\n")
    rows = [line for line in out.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1
    assert out.count("<details>") == out.count("</details>") == 1


ODD = [
    "\x1b[31mred\x1b[0m",
    "\x1b]52;c;ZXZpbA==\x07",
    "a\n::error::fake",
    "::error::fake",
    "good\revil",
    "\u202egnp.exe",
    "a\u200bb",
    "[/nope][link=http://evil]x[/link]",
    "a|b`c`<script>alert(1)</script>",
    "![x](http://evil/x.png)",
    "=cmd|' /C calc'!A0",
    "{a,b}*?[x]",
    "a\tb",
    "x" * 100_000,
    "..",
    "",
    "重み",
    "quote\"'$(reboot)`reboot`\\",
]


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    path = tmp_path / "odd.safetensors"
    save_file(
        {key: torch.full((2,), float(at)) for at, key in enumerate(ODD)}, path, metadata={"a\x1b[2J": "b\r\n|`<b>"}
    )
    return path


@pytest.mark.parametrize("form", ["text", "markdown", "lines", "ndjson", "json"])
@pytest.mark.parametrize("options", [[], ["--flat"]], ids=["tree", "flat"])
def test_hostile_names_act_on_nothing(form: str, options: list[str], odd: Path, cli: Run) -> None:
    code, out, err = cli("inspect", str(odd), "--format", form, *options)
    assert (code, err) == (0, "")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", out)
    assert all(not line.lstrip().startswith("::") for line in out.splitlines())
    if form == "markdown":
        assert "<script" not in out
        assert "](http" not in re.sub("`[^`\n]+`", "", out)
        assert len({line.count("|") for line in out.splitlines() if line.startswith("|")}) == 1
    if form == "lines":
        assert len(out.splitlines()) == len(ODD)
        assert {line.count("\t") for line in out.splitlines()} == {2}
    if form == "text" and options:
        assert max(map(len, out.splitlines())) < 600


def test_json_keeps_odd_names_exactly(odd: Path, cli: Run) -> None:
    found = json.loads(cli("inspect", str(odd), "--json")[1])
    assert {tensor["key"] for tensor in found["tensors"]} == set(ODD)
    assert found["metadata"] == {"a\x1b[2J": "b\r\n|`<b>"}


@pytest.mark.parametrize("form", ["text", "markdown", "lines", "ndjson", "json"])
def test_lone_surrogates_and_odd_keys_of_a_pickle(form: str, tmp_path: Path, cli: Run) -> None:
    torch.save({"a\udcff": torch.ones(2), 1: torch.ones(2), "1": torch.zeros(2), None: 3}, tmp_path / "a.pth")
    code, out, _ = cli("inspect", str(tmp_path / "a.pth"), "--format", form)
    assert code == 0
    out.encode("utf-8")


def test_every_printed_pattern_can_be_pasted(cli: Run) -> None:
    for name in ("resnet18.pth", "training.ckpt"):
        out = cli("inspect", name)[1]
        (pattern,) = re.findall(r'--only "?([^"\s]+)"?', out)
        code, only, _ = cli("inspect", name, "--only", pattern)
        assert code == 0
        assert re.search(r"30 of 122 tensors", only)


def test_a_pattern_without_a_match_offers_another(cli: Run) -> None:
    code, out, err = cli("inspect", "resnet18.pth", "--only", "classifier.*")
    assert (code, out) == (2, "")
    assert err.startswith('error: --only "classifier.*" matches none of the 122 keys\n  help: did you mean "fc.*"')


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect"], "missing argument"),
        (["inspect", "nothing.pth"], "nothing.pth"),
        (["inspect", "hostile/truncated.pth"], "cut off"),
        (["inspect", "hostile/pointer.safetensors"], "Git LFS pointer"),
        (["inspect", "resnet18.pth", "--format", "yaml"], "yaml"),
        (["inspect", "resnet18.pth", "--nope"], "--nope"),
        (["inspekt", "resnet18.pth"], "did you mean 'inspect'"),
        (["inspect", "resnet18.pth", "--select", "nothing"], "nothing"),
    ],
)
def test_trouble_is_one_message_and_exit_2(arguments: list[str], message: str, cli: Run) -> None:
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message.lower() in err.lower()
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 3


@pytest.mark.parametrize("arguments", [["nothing.pth", "--json"], ["--json"], ["hostile/page.pth", "--format", "json"]])
def test_trouble_as_json(arguments: list[str], cli: Run) -> None:
    code, out, err = cli("inspect", *arguments)
    assert code == 2
    found = json.loads(out)
    assert found["schema"] == "ckptool.error/1"
    assert found["error"]["code"] in {"usage", "unreadable"}
    assert found["error"]["message"] in err


def test_a_bug_is_a_line_and_debug_shows_where(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import ckptool.formats.opening

    def broken(*_: object, **__: object) -> None:
        raise KeyError("\x1b[31mhidden")

    monkeypatch.setattr(ckptool.formats.opening, "open_checkpoint", broken)
    code, _, err = cli("inspect", "resnet18.pth")
    assert code == 2
    assert "this is a bug" in err
    assert "Traceback" not in err
    assert "\x1b" not in err
    code, _, err = cli("inspect", "resnet18.pth", "--debug")
    assert code == 2
    assert "Traceback" in err
    assert "\x1b" not in err


@pytest.mark.parametrize("error", [MemoryError(), RecursionError(), PermissionError(13, "Permission denied", "x.pth")])
def test_the_system_refusing_is_no_traceback(error: Exception, cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import ckptool.formats.opening

    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(ckptool.formats.opening, "open_checkpoint", broken)
    code, _, err = cli("inspect", "resnet18.pth")
    assert code == 2
    assert err.startswith("error: ")
    assert "Traceback" not in err


def test_interrupted(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import ckptool.formats.opening

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ckptool.formats.opening, "open_checkpoint", stopped)
    assert cli("inspect", "resnet18.pth") == (130, "", "interrupted; nothing written\n")


def test_a_closed_pipe_is_silent(fixtures: Path) -> None:
    done = shell("ckptool inspect resnet18.pth --flat --format ndjson | head -1", fixtures)
    assert done.stderr == b""
    assert done.stdout.count(b"\n") == 1


def test_a_full_disk_is_said(fixtures: Path) -> None:
    done = shell("ckptool inspect resnet18.pth > /dev/full", fixtures)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: no space left on device")


def test_a_terminal_without_unicode_gets_ascii(fixtures: Path) -> None:
    done = shell("ckptool inspect resnet18.pth", fixtures, PYTHONIOENCODING="ascii", COLUMNS="80")
    assert done.returncode == 0
    assert done.stdout.decode("ascii").count("|- ") > 3


def test_color_only_where_it_is_wanted(fixtures: Path) -> None:
    def colored(command: str, **environ: str) -> bool:
        return b"\x1b[" in shell(f"ckptool inspect resnet18.pth {command}", fixtures, **environ).stdout

    assert not colored("")
    assert colored("--color always")
    assert colored("", FORCE_COLOR="1")
    assert not colored("", FORCE_COLOR="1", NO_COLOR="1")
    assert not colored("--color never", FORCE_COLOR="1")
    plain = shell("ckptool inspect resnet18.pth", fixtures, COLUMNS="80").stdout.decode()
    painted = shell("ckptool inspect resnet18.pth --color always", fixtures, COLUMNS="80").stdout.decode()
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", painted)
    assert [line.rstrip() for line in stripped.splitlines()] == plain.splitlines()


def test_help_pages_say_how_and_end_with_exit_codes(cli: Run) -> None:
    for arguments in ([], ["--help"], ["-h"], ["inspect", "-h"], ["diff", "--help"]):
        code, out, _ = cli(*arguments, columns=80)
        assert code == 0
        assert max(map(len, out.splitlines())) <= 80
        *_, examples, last = out.strip().split("\n\n")
        assert examples.startswith("Examples:")
        assert examples.count("\n  ckptool ") == 3
        assert last.startswith("Exit codes:")


def test_keys_complete_from_the_header(fixtures: Path) -> None:
    words = "ckptool inspect resnet18.pth --only layer4.1.bn2."
    done = shell("ckptool", fixtures, _CKPTOOL_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD="4")
    assert b"layer4.1.bn2.running_var" in done.stdout
    assert b"fc.weight" not in done.stdout


@pytest.mark.parametrize(
    "arguments", [["inspect", ""], ["diff", "resnet18.pth", ""], ["filter", "resnet18.pth", "-o", ""]]
)
def test_an_empty_path_is_not_the_current_folder(arguments: list[str], cli: Run) -> None:
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: a path is empty\n  help: ")
