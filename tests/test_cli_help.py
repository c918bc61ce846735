"""`ckptool help`: pages, commands, near misses."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from console import Run, runner

from ckptool.cli.app import app
from ckptool.cli.topics import page, page_lines, topics
from ckptool.commands.checks import RULES, allow_lists, policy_keys
from ckptool.commands.merging.methods import METHODS as MERGE_METHODS
from ckptool.facts.registry import names as fact_names
from ckptool.fits.args import METHODS
from ckptool.formats.registry import written_endings
from ckptool.recipes.expression_specs import FUNCTIONS
from ckptool.recipes.recipe import _KEYS as RECIPE_KEYS
from ckptool.report.text import Screen, paint

NAMES = list(topics())


@pytest.fixture
def cli(fixtures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(fixtures, monkeypatch, capsys)


def test_every_page_is_listed_with_its_title(cli: Run) -> None:
    code, out, _ = cli("help")
    assert code == 0
    assert {path.stem for path in (ROOT / "ckptool" / "help").glob("*.md")} == set(NAMES)
    for name, title in topics().items():
        assert re.search(rf"^  {name} +{re.escape(title)}$", out, re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_a_pipe_gets_the_markdown(name: str, cli: Run) -> None:
    assert cli("help", name) == (0, page(name), "")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [80, 120])
def test_paragraphs_fit_a_terminal(name: str, width: int) -> None:
    screen = Screen(width=width, height=40, elide=True)
    text = page(name)
    code = {
        f"    {line}" for block in re.findall(r"^```.*?\n(.*?)^```$", text, re.M | re.S) for line in block.splitlines()
    }
    for line in page_lines(text, screen):
        shown = paint(line, screen)
        assert len(shown) <= width or shown in code, shown


def test_a_table_is_broken_between_words() -> None:
    text = "| key | does |\n|---|---|\n| `--fail-on error\\|note` | what ends with an exit code that is not zero |\n"
    lines = [paint(line, Screen(width=50, elide=True)) for line in page_lines(text, Screen(width=50, elide=True))]
    assert len(lines) > 2 and all(len(line) <= 50 for line in lines)
    assert "\\" not in "".join(lines) and "".join(lines).count("|") == 1
    assert sorted("".join(f"{line} " for line in lines[1:]).split()) == sorted(
        ["`--fail-on", "error|note`", "what", "ends", "with", "an", "exit", "code", "that", "is", "not", "zero"]
    )


COMMANDS = [
    *(
        (name,)
        for name in ("inspect", "diff", "filter", "remap", "merge", "transplant", "check", "extract", "help", "git")
    ),
    *(("git", name) for name in ("install", "uninstall", "status", "textconv", "diff")),
]


@pytest.mark.parametrize("command", [(), *COMMANDS])
def test_options_fit_a_terminal(command: tuple[str, ...], cli: Run) -> None:
    code, out, _ = cli(*command, "--help", columns=80)
    assert code == 0
    assert [line for line in out.splitlines() if len(line) > 80] == []


def test_a_command_has_its_own_page(cli: Run) -> None:
    code, out, _ = cli("help", "remap")
    assert code == 0
    assert out.startswith("Usage: ckptool remap [OPTIONS] IN\n")


def test_a_near_miss_is_named(cli: Run) -> None:
    code, out, err = cli("help", "recipez")
    assert (code, out) == (2, "")
    assert "did you mean recipes?" in err


def test_pages_come_without_torch_and_numpy() -> None:
    code = "import sys; from ckptool.__main__ import main; sys.argv = ['ckptool', 'help', 'recipes']; main()"
    probe = f"import atexit, sys; atexit.register(lambda: print(sorted(sys.modules), file=sys.stderr)); {code}"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"'torch'", "'numpy'"} & set(re.findall(r"'\w+'", done.stderr))


POLICY_KEYS = [*policy_keys(), "levels", "allow", "paths", "fail-on"]
PAGES_OF = {
    "inspect": ["inspect", "output"],
    "diff": ["diff", "matching", "output"],
    "filter": ["filter", "writing", "output"],
    "remap": ["recipes", "matching", "writing", "output"],
    "merge": ["merge", "writing", "output"],
    "extract": ["extract", "output"],
    "transplant": ["transplant", "matching", "writing", "output"],
    "check": ["policy", "output"],
    "git": ["git", "diff", "output"],
}


def options_of(command: str) -> set[str]:
    """All long options that a command knows, those of its subcommands included."""
    from typer.main import get_command

    top = get_command(app)
    found: set[str] = set()
    commands = [top.commands[command]]
    for each in commands:  # grows
        commands += [command for command in getattr(each, "commands", {}).values() if not command.hidden]
        found |= {name for parameter in each.params for name in parameter.opts if name.startswith("--")}
    return found - {"--help"}


@pytest.mark.parametrize("command", PAGES_OF)
def test_a_page_names_every_option(command: str) -> None:
    text = " ".join(page(name) for name in PAGES_OF[command])
    assert {option for option in options_of(command) if not re.search(rf"{option}(?![\w-])", text)} == set()


def test_every_command_has_a_page() -> None:
    from typer.main import get_command

    assert set(get_command(app).commands) - {"help"} == set(PAGES_OF)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("recipes", [*RECIPE_KEYS, *FUNCTIONS, *METHODS]),
        ("merge", [word for method in MERGE_METHODS.values() for word in (method.name, *method.options)]),
        ("policy", [*RULES, *allow_lists(), *POLICY_KEYS]),
        ("formats", list(written_endings())),
        ("facts", [name for name in fact_names() if name != "fact"]),
    ],
)
def test_a_page_names_the_whole_language(name: str, words: list[str]) -> None:
    text = page(name)
    assert [word for word in words if not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text)] == []


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["resnet18.pth"], "ckptool inspect resnet18.pth"),
        (["resnet18.pth", "-v"], "ckptool inspect resnet18.pth"),
        (["resnet18.pth", "tuned.safetensors"], "ckptool diff resnet18.pth tuned.safetensors"),
        (["shards"], "ckptool inspect shards"),
        (["not there.safetensors"], "ckptool inspect 'not there.safetensors'"),
        (["hf://org/model"], "ckptool inspect hf://org/model"),
    ],
)
def test_a_forgotten_command_is_named(words: list[str], hint: str, cli: Run) -> None:
    code, out, err = cli(*words)
    assert (code, out) == (2, "")
    assert err.splitlines() == [f"error: there is no command before {words[0]}", f"  help: {hint}"]


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        ("inspect resnet18.pth shards", "does not take so many arguments: shards", "ckptool diff resnet18.pth shards"),
        ("filter resnet18.pth out.pth", "does not take so many arguments: out.pth", "ckptool filter --help"),
        ("help git install", "does not take so many arguments: install", "ckptool help --help"),
        ("version", 'there is no command "version"', "ckptool --version"),
        ("help exit", 'there is no page "exit"', "pages about it: output"),
        ("help zzzzz", 'there is no page "zzzzz"', "all pages: ckptool help"),
        ("filter resnet18.pth --select model", "no tensors under model", "leave out --select"),
        ("remap training.ckpt -r fc.->head.", "matches none of the 122 keys", '".fc. -> .head."'),
        ("remap resnet18.pth -r zz.->head.", "matches none of the 122 keys", "a leading ? lets it match nothing"),
    ],
)
def test_a_wrong_line_leads_to_a_right_one(words: str, said: str, hint: str, cli: Run) -> None:
    code, _, err = cli(*words.split())
    assert code == 2
    flat = " ".join(err.split())
    assert said in flat and hint in flat
    assert cli("-V")[1] == cli("--version")[1]
