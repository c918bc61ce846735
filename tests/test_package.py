"""The package as a whole: what importing it costs, what depends on what, and what its Python API promises."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from conftest import FIXTURES, ROOT

import ckptool


def heads(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def loaded(code: str) -> set[str]:
    """The top-level modules in a fresh interpreter after some code."""
    code += "\nimport sys; print('modules:', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return heads(set(done.stdout.rpartition("modules:")[2].split()))


def test_import_is_cheap() -> None:
    assert not loaded("import ckptool") & {"numpy", "torch", "rich", "typer", "dataclasses"}


def test_opening_needs_no_numpy_and_no_torch() -> None:
    after = loaded(
        "import ckptool\nfor name in ('resnet18.pth', 'tuned.safetensors'): ckptool.open('fixtures/' + name)"
    )
    assert not after & {"numpy", "torch", "rich", "typer"}


def test_inspect_needs_no_numpy_and_no_torch() -> None:
    code = "from ckptool.cli.app import run\nrun(['inspect', 'fixtures/resnet18.pth'])"
    assert not loaded(code) & {"numpy", "torch", "ml_dtypes"}


def test_all_names_of_the_api_exist() -> None:
    assert set(ckptool.__all__) <= set(dir(ckptool))
    for name in ckptool.__all__:
        assert getattr(ckptool, name).__doc__
    with pytest.raises(AttributeError, match="has no attribute 'opne'"):
        ckptool.opne  # type: ignore[attr-defined]  # noqa: B018


def test_open_takes_text_and_paths_and_raises_one_kind_of_error() -> None:
    assert len(ckptool.open(str(FIXTURES / "resnet18-102.pth"))) == 102
    assert len(ckptool.open(FIXTURES / "shards")) == 122
    with pytest.raises(ckptool.CkptError, match="LFS") as caught:
        ckptool.open(FIXTURES / "hostile" / "pointer.safetensors")
    assert caught.value.hint


def test_compare_takes_paths_and_checkpoints() -> None:
    old = ckptool.open(FIXTURES / "resnet18-102.pth")
    diff = ckptool.compare(old, str(FIXTURES / "resnet18.pth"))
    assert diff.old is old
    assert (diff.count(ckptool.Status.SAME), diff.count(ckptool.Status.ADDED)) == (102, 20)
    assert diff.exit_code == 1
    with pytest.raises(ckptool.CkptError, match="matches none"):
        ckptool.compare(old, FIXTURES / "resnet18.pth", only=["nothing.*"])


def test_dir_lists_what_is_promised_and_no_more() -> None:
    assert {name for name in dir(ckptool) if not name.startswith("__")} == set(ckptool.__all__)


def test_an_unknown_key_says_what_was_probably_meant() -> None:
    checkpoint = ckptool.open(FIXTURES / "training.ckpt")
    with pytest.raises(KeyError, match=r'no tensor "fc\.weight"; did you mean "module\.fc\.weight"\?'):
        checkpoint["fc.weight"]
    assert checkpoint.get("fc.weight") is None
    assert "fc.weight" not in checkpoint


def test_a_traceback_shows_the_hint() -> None:
    import traceback

    with pytest.raises(ckptool.CkptError) as caught:
        ckptool.open(FIXTURES / "hostile" / "pointer.safetensors")
    assert traceback.format_exception(caught.value)[-1] == "help: git lfs pull --include pointer.safetensors\n"


def test_check_takes_paths_a_policy_and_a_model(tmp_path: object) -> None:
    from pathlib import Path

    assert not ckptool.check(FIXTURES / "resnet18.pth").findings
    report = ckptool.check(
        [FIXTURES / "resnet18.pth", str(FIXTURES / "tuned.safetensors")], into="fixtures/resnet18.pth"
    )
    assert [(one.rule, one.policy) for one in report.findings] == [("fits", None)]
    policy = Path(str(tmp_path)) / "p.toml"
    policy.write_text('max-size = "1kB"\n', encoding="utf-8")
    assert [one.rule for one in ckptool.check(FIXTURES / "resnet18.pth", policy=policy).findings] == ["size"]
    model = ckptool.check(
        FIXTURES / "tuned.safetensors", into="fixtures/models.py:ResNet18", model_args={"num_classes": 10}
    )
    assert not model.findings
    with pytest.raises(ckptool.CkptError, match="dtpye"):
        ckptool.check(FIXTURES / "resnet18.pth", rules=["dtpye"])


@pytest.mark.parametrize(
    "line", ["import ckptool.commands.diff.comparison", "from ckptool.commands.diff.comparison import compare", "pass"]
)
def test_compare_stays_the_function_beside_the_folder_of_its_name(line: str) -> None:
    code = f"{line}\nimport ckptool\nprint(ckptool.compare('fixtures/shards', 'fixtures/shards-bin').is_same)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "True\n"


def test_version_is_said_once() -> None:
    import tomllib

    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert table["project"]["dynamic"] == ["version"]
    text = (ROOT / table["tool"]["hatch"]["version"]["path"]).read_text(encoding="utf-8")
    assert f'VERSION = "{ckptool.__version__}"\n' in text


@pytest.mark.parametrize("name", ["dorp", "live", "match", "selected"])
def test_an_option_that_does_not_exist_is_refused(name: str) -> None:
    plan = ckptool.plan_filter(FIXTURES / "resnet18.pth")
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        ckptool.plan_transplant(FIXTURES / "resnet18.pth", FIXTURES / "resnet18.pth", **{name: True})  # type: ignore[misc]
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        plan.apply("never.pth", **{name: True})  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize("choices", [[("dropp", "fc.*")], ["fc.*"], "fc.*", [("drop",)], [("keep", "fc.*", "x")]])
def test_a_choice_is_keep_or_drop_with_a_pattern(choices: Any) -> None:
    with pytest.raises((ckptool.CkptError, TypeError)) as refused:
        ckptool.plan_filter(FIXTURES / "resnet18.pth", choices)
    said = refused.value.hint if isinstance(refused.value, ckptool.CkptError) else str(refused.value)
    assert '("drop", "fc.*")' in said or said == '("keep", PATTERN) or ("drop", PATTERN)'


def test_one_text_is_never_taken_for_its_letters() -> None:
    model, tuned = str(FIXTURES / "resnet18.pth"), str(FIXTURES / "tuned.safetensors")
    assert ckptool.plan_remap(model, "fc. -> head.").steps == ckptool.plan_remap(model, ["fc. -> head."]).steps
    assert len(ckptool.plan_transplant(model, tuned, drop="fc.*").plan.steps) == 122
    assert [change.key for change in ckptool.compare(model, tuned, only="fc.*").changes] == ["fc.bias", "fc.weight"]
    assert ckptool.check(model, rules="readable").rules == ("readable",)
    assert len(ckptool.plan_merge(model).inputs) == 1


@pytest.mark.parametrize(
    ("name", "meant"), [("filter", "plan_filter"), ("diff", "compare"), ("transplant", "plan_transplant")]
)
def test_the_name_of_a_command_leads_to_its_function(name: str, meant: str) -> None:
    with pytest.raises(AttributeError, match=rf"use ckptool\.{meant}"):
        getattr(ckptool, name)
