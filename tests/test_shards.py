"""Folders of training ranks: examples that the frameworks themselves wrote, with the whole tensors that they hold.

The examples are DeepSpeed's, torch's, Accelerate's and Megatron's own files; see the README of `data`.
"""

from __future__ import annotations

import io
import json
import random
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from conftest import ROOT
from console import Run, runner
from safetensors.torch import load_file

from ckptool.core.errors import CkptError
from ckptool.engine.reading import Reader
from ckptool.formats.opening import open_checkpoint

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated"),
]

ARCHIVE = ROOT / "tests" / "data" / "shards.zip"
with zipfile.ZipFile(ARCHIVE) as archive:
    CASES = sorted(name.partition("/")[0] for name in archive.namelist() if name.endswith("case.json"))


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("shards")
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(target)
    return target


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(tmp_path, monkeypatch, capsys)


def values_of(path: Path, select: str | None = None) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    checkpoint = open_checkpoint(path, select)
    with Reader() as reader:
        return {key: (t.dtype, t.shape, reader.read_bytes(t)) for key, t in checkpoint.items()}


@pytest.mark.parametrize("case", CASES)
def test_what_the_frameworks_wrote(case: str, examples: Path) -> None:
    folder = examples / case
    said = json.loads((folder / "case.json").read_text())
    if said["expect"] == "refuse":
        with pytest.raises(CkptError) as refused:
            open_checkpoint(folder / said["open"])
        text = f"{refused.value.message} {refused.value.hint}"
        assert all(word in text for word in said["must_name"])
        return
    found = values_of(folder / said["open"], said.get("select"))
    expected = values_of(folder / "expected.safetensors")
    optional = values_of(folder / "optional.safetensors") if (folder / "optional.safetensors").exists() else {}
    assert {key: found.get(key) for key in expected} == expected
    for key in found.keys() - expected.keys():
        assert found[key][1:] == optional[key][1:]


@pytest.mark.parametrize("case", [case for case in CASES if "moe" in case])
def test_masters_of_experts(case: str, examples: Path, cli: Run) -> None:
    """Each expert's float32 weights round to the weights of the forward pass, which lie in files of their own."""
    folder = examples / case
    assert cli("filter", str(folder / "in"), "-o", "out.pth")[0] == 0
    saved = torch.load("out.pth", weights_only=True)
    module = cli("filter", str(folder / "in"), "--select", "module", "-o", "module.pth")
    assert module[0] == 0
    used = torch.load("module.pth", weights_only=True)
    used = used.get("module", used)
    assert list(saved["fp32"]) == list(used)
    assert all(torch.equal(saved["fp32"][key].to(value.dtype), value) for key, value in used.items())
    names = [name for group in saved["optimizer"]["param_groups"] for name in group["params"]]
    assert (
        set(names) == set(saved["optimizer"]["state"]) == {key for key in used if key != "scale" and "buf" not in key}
    )
    assert all(state["exp_avg"].shape == used[name].shape for name, state in saved["optimizer"]["state"].items())
    if (folder / "optimizer.safetensors").exists():
        for name, value in load_file(folder / "optimizer.safetensors").items():
            key, state = name.split(" ")
            assert torch.equal(saved["optimizer"]["state"][key][state], value), name


def test_experts_on_other_ranks(examples: Path, tmp_path: Path) -> None:
    """A rank is missing, or the groups of the optimizer are for another number of ranks."""
    folder = tmp_path / "tag"
    shutil.copytree(examples / "ds2_moe_fp32_4" / "in" / "global_step3", folder)
    first = folder / "zero_pp_rank_0_mp_rank_00_optim_states.pt"
    whole = first.read_bytes()
    for size, words in ((3, "experts of group 1 on 3 ranks"), (4, "needs element")):
        with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(first, "w") as new:
            for name in old.namelist():
                new.writestr(name, old.read(name).replace(b"ep_size_2", f"ep_size_{size}".encode()))
        with pytest.raises(CkptError, match=words):
            open_checkpoint(folder)
        first.write_bytes(whole)
    (folder / "zero_pp_rank_2_mp_rank_00_optim_states.pt").unlink()
    with pytest.raises(CkptError, match="rank 2 of 4 is missing"):
        open_checkpoint(folder)


@pytest.mark.parametrize("case", [case for case in CASES if case != "fsdp2_one_rank_alone_2"])
def test_every_command(case: str, examples: Path, cli: Run, tmp_path: Path) -> None:
    folder = examples / case
    said = json.loads((folder / "case.json").read_text())
    source = str(folder / said["open"])
    refused = said["expect"] == "refuse"
    out = tmp_path / "out.safetensors"
    for arguments in (
        ["inspect", source],
        ["inspect", source, "--json"],
        ["check", source],
        ["filter", source, "-o", str(out)],
        ["remap", source, "-r", "?gate -> gates", "-o", str(tmp_path / "r.pth")],
    ):
        code, text, error = cli(*arguments)
        assert code == (2 if refused else 0) or (arguments[0] == "check" and code == 1), (arguments, text, error)
        assert not refused or all(word in text + error for word in said["must_name"])
    if refused:
        assert not list(tmp_path.iterdir())
        return
    code, text, _ = cli("diff", source, str(out))
    assert code in (0, 1)
    count = len(open_checkpoint(out))
    assert f"identical: {count} tensor" in text or f"= {count} identical   + 0 added   - 0 removed" in text
    assert values_of(out) == values_of(Path(source))


def test_what_inspect_says_of_ranks(examples: Path, cli: Run) -> None:
    said = json.loads(cli("inspect", str(examples / "verl_fsdp_tp_4" / "in"), "--json")[1])
    assert said["ranks"]["mesh"] == {"names": ["dp", "tp"], "shape": [2, 2]}
    assert said["ranks"]["placements"]["[_StridedShard(0), Shard(0)]"] == 4
    assert {each.get("chunks") for each in said["tensors"]} == {None, 2, 4}
    code, text, _ = cli("inspect", str(examples / "ds3_bf16" / "in"))
    assert code == 0
    assert "DeepSpeed ZeRO-3, 2 ranks" in text
    assert "step 2" in text


# ------------------------------------------------------------------------------------------------- what is refused


def refused(path: Path) -> CkptError:
    with pytest.raises(CkptError) as found:
        open_checkpoint(path)
    assert "\n" not in found.value.message
    return found.value


@pytest.fixture
def copied(examples: Path, tmp_path: Path) -> Callable[[str], Path]:
    def copy(case: str) -> Path:
        return Path(shutil.copytree(examples / case / "in", tmp_path / case))

    return copy


def test_a_missing_rank_of_dcp_without_collectives(copied: Callable[[str], Path]) -> None:
    folder = copied("dcp_no_collectives_2")
    (folder / "__1.metadata").rename(folder / "kept")
    error = refused(folder)
    assert "__1.metadata" in error.message
    assert error.key is not None
    (folder / "kept").rename(folder / "__1.metadata")
    (folder / "__1_0.distcp").unlink()
    assert "__1_0.distcp" in refused(folder).message


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
def test_a_part_of_a_folder_leads_to_it(copied: Callable[[str], Path], name: str) -> None:
    folder = copied("dcp_fsdp2_bare_2")
    error = refused(folder / name)
    assert str(folder) in str(error.hint)


def test_megatrons_iterations(copied: Callable[[str], Path]) -> None:
    folder = copied("mcore_torch_dist_2")
    latest = folder / "latest_checkpointed_iteration.txt"
    checkpoint = open_checkpoint(folder)
    assert checkpoint.ranks is not None
    assert checkpoint.ranks.step == 10
    assert list(open_checkpoint(folder / "iter_0000010")) == list(checkpoint)
    latest.write_text("20")
    assert "iteration 20" in refused(folder).message
    latest.unlink()
    shutil.copytree(folder / "iter_0000010", folder / "iter_0000020")
    assert "iter_0000020" in refused(folder).message
    settings = folder / "iter_0000010" / "metadata.json"
    settings.write_text('{"sharded_backend": "zarr"}')
    assert "zarr" in refused(folder / "iter_0000010").message


def test_megatrons_layers_come_apart(copied: Callable[[str], Path], cli: Run, tmp_path: Path) -> None:
    folder = copied("mcore_torch_dist_2")
    _, text, _ = cli("inspect", str(folder))
    rule = re.search(r'-r "(?P<rule>[^"]*)"', text)
    assert rule is not None
    out = tmp_path / "out.safetensors"
    assert cli("remap", str(folder), "-r", " ".join(rule["rule"].split()), "-o", str(out))[0] == 0
    layers = [key for key in open_checkpoint(out) if ".layers.0." in key]
    assert layers


def test_accelerates_optimizer_comes_along(copied: Callable[[str], Path], tmp_path: Path, cli: Run) -> None:
    folder = copied("accelerate_fsdp2")
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones(3)
    optimizer.step()
    state = {"state": {"gate": optimizer.state[parameter]}, "param_groups": [{"lr": 0.1, "params": ["gate"]}]}
    dcp.save({"optimizer": state}, checkpoint_id=folder / "optimizer_0", no_dist=True)
    assert cli("filter", str(folder), "-o", "out.pth")[0] == 0
    saved = torch.load("out.pth", weights_only=True)
    assert set(saved) == {"model", "optimizer"}
    assert torch.equal(saved["optimizer"]["state"]["gate"]["exp_avg"], optimizer.state[parameter]["exp_avg"])
    shutil.copytree(folder / "pytorch_model_fsdp_0", folder / "pytorch_model_fsdp_1")
    assert "pytorch_model_fsdp_1" in refused(folder).message


def test_folders_around(copied: Callable[[str], Path], tmp_path: Path) -> None:
    """verl keeps actor and critic of each step apart."""
    step = tmp_path / "run" / "global_step_10"
    step.mkdir(parents=True)
    shutil.move(copied("verl_fsdp2_2"), step / "actor")
    expected = list(open_checkpoint(step / "actor"))
    assert list(open_checkpoint(step)) == expected
    (tmp_path / "run" / "global_step_20").mkdir()
    (tmp_path / "run" / "latest_checkpointed_iteration.txt").write_text("10")
    assert list(open_checkpoint(tmp_path / "run")) == expected
    (tmp_path / "run" / "latest_checkpointed_iteration.txt").unlink()
    (tmp_path / "run" / "global_step_20").rmdir()
    assert list(open_checkpoint(tmp_path / "run")) == expected
    shutil.copytree(step / "actor", step / "critic")
    error = refused(step)
    assert "actor, critic" in str(error.hint)


NOT_NEEDED = re.compile(
    r"latest.*|.*\.py|fsdp_config\.json|huggingface/.*|1/progress/none|scheduler\.bin|common\.pt|metadata\.json"
    r"|(?:post\.\w+|ids|temp|out\.weight)/fp32\.pt"  # universal: buffers and a tied weight, which the model states have
)
OPTIMIZERS = re.compile(r"optimizer_state\.pt|[\w.]+/(?:exp_avg|exp_avg_sq|step)\.pt")


@pytest.mark.parametrize(
    "case", [case for case in CASES if case not in ("fsdp1_local_flat_2", "fsdp2_one_rank_alone_2")]
)
def test_a_lost_file_or_a_cut_one_is_named(case: str, copied: Callable[[str], Path], cli: Run, tmp_path: Path) -> None:
    """Every file that holds weights, lost and cut short anywhere: exit 2, its name or that of its rank, no output."""
    folder = copied(case)
    rng = random.Random(case)
    out = tmp_path / "out.pth"
    for number, path in enumerate(path for path in sorted(folder.rglob("*")) if path.is_file()):
        inside = str(path.relative_to(folder))
        name = re.sub(r"^(?:global_step2(?:_universal)?/(?:zero/)?|iter_0000010/)", "", inside)
        if NOT_NEEDED.fullmatch(name):
            continue
        if case == "ds1_moe_4" and "optim_states" in name:  # they are not read
            continue
        if case == "torchsnapshot_chunked_2" and name.startswith("batched/bee9"):
            continue  # what rank 1 has of its own: rank 0's is taken
        if case == "ds1_pipeline_4" and name.startswith("layer_03"):  # a layer without parameters
            continue
        data = path.read_bytes()
        cut = rng.randrange(len(data))
        # where there are very many, as three files of each parameter, one is lost and the next is cut
        for size in (None, cut) if number < 12 else (cut,) if number % 2 else (None,):
            path.unlink()
            if size is not None:
                path.write_bytes(data[:size])
            code, text, error = cli("filter", str(folder), "-o", str(out))
            said = " ".join((text + error).split())
            assert "Traceback" not in said
            if size is None and case == "hfdcp_sharded_ints_2" and name.startswith("shard-00002"):
                assert code == 0  # the last rank: the files do not state how many there are
                assert "do not state how many ranks" in cli("inspect", str(folder))[1].replace("\n", " ")
            elif size is None and case == "verl_hsdp_4":
                assert code == 0  # another rank holds a copy
                assert f"rank {re.findall('[0-9]', name)[-1]} missing" in cli("inspect", str(folder))[1]
            elif size is None and name == ".snapshot_metadata":
                assert code == 2  # what is left has no names
            elif size is None and name.startswith("extra_state"):
                assert code == 0  # every rank has the same
            elif size is None and OPTIMIZERS.fullmatch(name):
                assert code == 0  # the weights are all there
                assert "the optimizer's state is left out" in said
            else:
                assert code == 2, (inside, size, said)
                assert path.name in said.replace(" ", "") or path.name in said, (inside, size, said)
            assert out.exists() == (code == 0)
            out.unlink(missing_ok=True)
            path.write_bytes(data)


@pytest.mark.parametrize("case", CASES)
def test_spoiled_files_give_one_clear_error_or_none(case: str, copied: Callable[[str], Path]) -> None:
    folder = copied(case)
    rng = random.Random(case)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".py"]
    for _ in range(15 if case.startswith("verl") else 30):  # those have many more tensors
        path = rng.choice(files)
        data = path.read_bytes()
        spoiled = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(min(len(data), 3000)) if rng.random() < 0.7 else rng.randrange(len(data))
            spoiled[at] = rng.choice([0, 1, 0x28, 0x4E, 0x7D, 0xFF, rng.randrange(256)])
        path.write_bytes(spoiled if rng.random() < 0.8 else spoiled[: rng.randrange(len(data))])
        try:
            checkpoint = open_checkpoint(folder)
            with Reader() as reader:
                for tensor in checkpoint.values():
                    reader.read_bytes(tensor)
        except CkptError as error:
            assert error.message
        path.write_bytes(data)
