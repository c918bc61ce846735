"""`ckptool git` in real repositories: what git prints, what is set up, what is taken away again."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from conftest import FIXTURES
from console import Run, runner, shell

from ckptool.cli.git_driver import MARK, covered, with_lines, without_lines

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


class Repository:
    """A repository in a home of its own, and commands in it as a user types them."""

    def __init__(self, home: Path, name: str = "repo") -> None:
        self.folder = home / name
        self.environ = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            **{name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ},  # the tree that is tested
        }
        self.folder.mkdir(parents=True)
        self("git", "init", "-q", "-b", "main")
        self("git", "config", "user.name", "a")
        self("git", "config", "user.email", "a@example.org")

    def run(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env={**self.environ, **environ}, capture_output=True, text=True, check=False
        )

    def __call__(self, *command: str, **environ: str) -> str:
        """What a command prints; it must succeed without a word on stderr."""
        done = self.run(*command, **environ)
        assert (done.returncode, done.stderr) == (0, ""), (command, done.stdout, done.stderr)
        return done.stdout

    def put(self, fixture: str, name: str) -> None:
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(FIXTURES / fixture, target)

    def commit(self, message: str) -> None:
        self("git", "add", "-A")
        self("git", "commit", "-q", "-m", message)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


@pytest.fixture
def history(repository: Repository) -> Repository:
    """Two versions of a file, the second one committed; set up."""
    repository("ckptool", "git", "install", "--lines")
    repository.put("resnet18.pth", "a model.pth")
    repository.commit("first")
    repository.put("resnet18-102.pth", "a model.pth")
    repository.commit("second")
    return repository


@pytest.mark.parametrize("command", [["show"], ["log", "-p", "-1"], ["diff", "HEAD~1"], ["diff", "HEAD~1", "HEAD"]])
def test_git_prints_a_line_per_tensor(command: list[str], history: Repository) -> None:
    out = history("git", *command)
    removed = [line for line in out.splitlines() if re.match(r"-[^-]", line)]
    assert "-# torch zip" in removed
    assert sum("num_batches_tracked\ti64[]\t" in line for line in removed) == 20
    assert len(removed) == 21
    assert "Binary files" not in out


def test_a_file_that_is_added_removed_and_renamed(history: Repository) -> None:
    assert history("git", "show", "HEAD~1", "--", "a model.pth").count("\n+") == 2 + 122  # "+++" and the first line
    history("git", "mv", "a model.pth", "b.pth")
    history.commit("renamed")
    assert "similarity index 100%" in history("git", "show")
    history("git", "rm", "-q", "b.pth")
    history.commit("removed")
    assert len(re.findall(r"\n-[a-z]", history("git", "show"))) == 102


def test_what_is_not_a_tensor_is_seen(repository: Repository) -> None:
    repository("ckptool", "git", "install", "--lines")
    repository.put("training.ckpt", "run.ckpt")
    repository.commit("first")
    out = repository("git", "show")
    assert "+# epoch = 2\n" in out
    assert '+# torch zip, weights under "state_dict"\n' in out
    assert "+# model_ema = (122 tensors, 54.1 kB)\n" in out
    repository.put("hostile/system.pth", "run.ckpt")
    assert "+# asks for posix.system: loading it with pickle would run code\n" in repository("git", "diff")
    assert not (repository.folder / "payload-ran").exists()


def test_conversions_are_kept_by_git_until_installed_again(history: Repository) -> None:
    cache = "refs/notes/textconv/ckptool"
    history("git", "log", "-p")
    assert history("git", "rev-parse", cache)
    history("ckptool", "git", "install")
    assert history.run("git", "rev-parse", "--verify", cache).returncode != 0


def test_without_a_name_nothing_is_kept_and_nothing_breaks(repository: Repository) -> None:
    """git commits what it keeps, and its diff dies where it cannot: found on a machine without user.name."""
    repository("git", "config", "--unset", "user.email")
    out = repository("ckptool", "git", "install", "--lines")
    assert "git keeps no conversions" in out
    repository.put("resnet18.pth", "a.pth")
    repository("git", "add", "-A")
    repository("git", "config", "user.useConfigOnly", "true")
    assert "+conv1.weight\tf32[2,3,7,7]" in repository("git", "diff", "--cached")
    repository("git", "config", "user.email", "a@example.org")
    assert "git keeps no conversions" not in repository("ckptool", "git", "install")


@pytest.mark.parametrize("fixture", ["pointer.safetensors", "truncated.pth", "page.pth", "overlap.safetensors"])
@pytest.mark.parametrize("full", [False, True])
def test_what_cannot_be_read_is_explained_and_breaks_nothing(fixture: str, full: bool, repository: Repository) -> None:
    name = f"model{Path(fixture).suffix}"
    repository("ckptool", "git", "install", "--full" if full else "--lines")
    repository.put(f"hostile/{fixture}", name)
    (repository.folder / "notes.txt").write_text("one\n")
    repository.commit("first")
    repository.put("resnet18.pth", name)
    (repository.folder / "notes.txt").write_text("two\n")
    out = repository("git", "diff")
    assert "+two" in out  # git went on
    assert "git-blob" not in out
    if fixture == "pointer.safetensors":
        assert "is a Git LFS pointer, not the weights (133 bytes)" in out
        assert ("a/model.safetensors is a Git LFS" in out) is full
        assert ("-oid sha256:" in out) is not full
    repository.commit("second")
    assert "conv1.weight\tf32[2,3,7,7]" in repository("git", "log", "-p")
    assert "git-blob" not in repository("git", "log", "-p", "--ext-diff")
    repository("git", "diff", "HEAD", "HEAD~1")


def test_by_default_git_diff_says_how_much_each_module_changed(repository: Repository) -> None:
    out = repository("ckptool", "git", "install")
    assert "each collaborator" in out
    repository.put("resnet18.pth", "a.pth")
    repository.commit("first")
    repository.put("tuned.safetensors", "a.pth")
    out = repository("git", "diff")
    assert re.search(r"^~  layer4\.\*  .*rel 1e-02", out, re.MULTILINE)
    assert not re.search("[0-9a-f]{32}", out)


def test_a_line_per_tensor_has_a_short_digest(history: Repository) -> None:
    history.put("tuned.safetensors", "a model.pth")
    line = next(line for line in history("git", "diff").splitlines() if line.startswith("+fc.bias"))
    digest = line.split("\t")[2]
    listed = history("ckptool", "inspect", "a model.pth", "--format", "lines", "--only", "fc.bias").split("\t")[2]
    assert len(digest) == 12
    assert listed.startswith(digest)


def test_the_full_report(history: Repository) -> None:
    history("ckptool", "git", "install")
    history.put("tuned.safetensors", "a model.pth")
    out = history("git", "diff")
    assert out.startswith("diff --ckptool a/a model.pth b/a model.pth\ndifferent: 117 of 122 tensors differ\n")
    assert "\n- a/a model.pth" in out
    assert "note: 20 keys only in a model.pth: all BatchNorm counters" in out
    assert "~ 95 changed   ! 2 reshaped   = 5 identical   + 20 added   - 0 removed" in out
    assert "git-blob" not in out
    assert "\x1b" not in out
    assert "\nconv1" not in history("git", "show", "--ext-diff")
    assert "-# torch zip\n" in history("git", "show")
    assert "-# torch legacy\n" in history("git", "diff", "--no-ext-diff")


def test_the_full_report_of_one_side(history: Repository) -> None:
    history("ckptool", "git", "install")
    history("git", "mv", "a model.pth", "b.pth")
    out = history("git", "diff", "--cached")
    assert out == "diff --ckptool a/a model.pth b/b.pth\nidentical: 102 tensors, 54.0 kB compared\n"
    history.put("training.ckpt", "new.ckpt")
    history("git", "add", "new.ckpt")
    out = history("git", "diff", "--cached", "--", "new.ckpt")
    assert out.startswith("diff --ckptool a/new.ckpt b/new.ckpt\nnew file\nb/new.ckpt   torch zip, 249 kB")
    assert "ckptool remap new.ckpt -r strip-wrappers" in out
    history("git", "rm", "-q", "-f", "b.pth")
    assert "deleted file\na/a model.pth   torch legacy" in history("git", "diff", "--cached", "--", "a model.pth")


def test_a_conflict_is_said(history: Repository) -> None:
    history("git", "checkout", "-q", "-b", "other", "HEAD~1")
    history.put("tuned.safetensors", "a model.pth")
    history.commit("theirs")
    assert history.run("git", "merge", "main").returncode == 1
    history("ckptool", "git", "install")
    assert "diff --ckptool a/a model.pth b/a model.pth\nnot merged" in history("git", "diff", "--cached")


def test_colour_goes_to_the_pager_of_git(history: Repository) -> None:
    history("ckptool", "git", "install")
    history.put("resnet18.pth", "a model.pth")
    assert "\x1b[1mdiff --ckptool" in history("git", "diff", GIT_PAGER_IN_USE="true")
    assert "\x1b" not in history("git", "diff", GIT_PAGER_IN_USE="true", NO_COLOR="1")


def test_a_hostile_name_is_one_line(repository: Repository) -> None:
    repository("ckptool", "git", "install")
    name = "-v\n::error::x\x1b[2J`reboot`$(reboot).pth"
    repository.put("resnet18.pth", name)
    repository("git", "add", "-A")
    out = repository("git", "diff", "--cached")
    assert "\x1b" not in out
    assert not any(line.startswith("::") for line in out.splitlines())
    repository.put("tuned.safetensors", name)
    assert "fc.weight" in repository("git", "diff")
    assert "fc.weight" in repository("git", "diff", "--no-ext-diff")


@pytest.mark.parametrize("full", [False, True])
def test_names_in_a_file_are_data(full: bool, repository: Repository) -> None:
    repository("ckptool", "git", "install", "--full" if full else "--lines")
    for name in ("names.safetensors", "names.pth"):
        repository.put(f"hostile/{name}", name)
    repository("git", "add", "-A")
    out = repository("git", "diff", "--cached", "--", "names.safetensors", "names.pth")
    assert len(out.splitlines()) > 10
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", out)
    assert not any(line.lstrip("+- ").startswith("::") for line in out.splitlines())


def test_weights_that_git_lfs_keeps_elsewhere(repository: Repository) -> None:
    """The filter is git's own mechanism, with a smudge that fetches the weights as git-lfs does; then without one."""
    repository("ckptool", "git", "install")
    store = repository.folder.parent / "store"
    store.mkdir()
    shutil.copy(FIXTURES / "tuned.safetensors", store / "object")
    attributes = repository.folder / ".gitattributes"
    attributes.write_text(f"*.safetensors filter=lfs -text\n{attributes.read_text()}")
    repository.put("hostile/pointer.safetensors", "model.safetensors")
    repository.commit("a pointer, as git-lfs commits it")
    assert "+# it is a Git LFS pointer" in repository("git", "show")
    repository("git", "config", "filter.lfs.smudge", f"cat >/dev/null; cat '{store / 'object'}'")
    assert "+# it is a Git LFS pointer" in repository("git", "show")  # git keeps what it converted
    repository("ckptool", "git", "install")
    assert "+fc.weight\tf32[10,16]" in repository("git", "show")


def test_installed_twice_is_installed_once(repository: Repository) -> None:
    attributes, config = repository.folder / ".gitattributes", repository.folder / ".git" / "config"
    attributes.write_bytes(b"*.pth filter=lfs diff=lfs merge=lfs -text\n*.pt diff=ckptool\n\xff\xfe.bin binary")
    before = config.read_text()
    repository("ckptool", "git", "install")
    once = attributes.read_bytes(), config.read_text()
    repository("ckptool", "git", "install")
    assert (attributes.read_bytes(), config.read_text()) == once
    assert once[0].count(b"*.pt diff=ckptool") == 1
    assert "a.pth: diff: ckptool\n" in repository("git", "check-attr", "diff", "filter", "--", "a.pth")
    assert "a.pth: filter: lfs\n" in repository("git", "check-attr", "diff", "filter", "--", "a.pth")
    repository("ckptool", "git", "install", "--pattern", "*.weights")
    assert "command = " in config.read_text()
    assert b"*.weights diff=ckptool\n" in attributes.read_bytes()
    repository("ckptool", "git", "install", "--lines")
    assert "command = " not in config.read_text()
    assert b"*.weights diff=ckptool\n" in attributes.read_bytes()
    repository("ckptool", "git", "uninstall")
    lines = b"*.pth filter=lfs diff=lfs merge=lfs -text\n*.pt diff=ckptool\n\xff\xfe.bin binary\n"
    assert attributes.read_bytes() == lines
    assert config.read_text() == before
    repository("ckptool", "git", "uninstall")
    assert attributes.read_bytes() == lines


def test_a_file_of_ours_alone_goes_again(history: Repository) -> None:
    assert MARK in (history.folder / ".gitattributes").read_text()
    history("ckptool", "git", "uninstall")
    assert not (history.folder / ".gitattributes").exists()
    assert "Binary files" in history("git", "diff", "HEAD~1", "--", "a model.pth")
    assert "ckptool" not in (history.folder / ".git" / "config").read_text()
    assert history.run("ckptool", "git", "status").returncode == 1


def test_from_a_folder_below_the_top(history: Repository) -> None:
    history.put("tuned.safetensors", "deep/er/b.safetensors")
    history("git", "add", "-A")
    history.folder = history.folder / "deep" / "er"
    history("ckptool", "git", "install")
    assert not (history.folder / ".gitattributes").exists()
    assert "new file\nb/deep/er/b.safetensors" in history("git", "diff", "--cached")


def test_for_all_repositories(repository: Repository, tmp_path: Path) -> None:
    dotfiles = tmp_path / "dotfiles"
    dotfiles.write_text("*.txt text\n")
    (tmp_path / ".config" / "git").mkdir(parents=True)
    (tmp_path / ".config" / "git" / "attributes").symlink_to(dotfiles)
    assert repository.run("ckptool", "git", "status", "--global").returncode == 1
    repository("ckptool", "git", "install", "--global")
    assert not (repository.folder / ".gitattributes").exists()
    assert (tmp_path / ".config" / "git" / "attributes").is_symlink()
    assert covered(dotfiles.read_text())
    repository("git", "config", "--global", "user.name", "a")
    repository("git", "config", "--global", "user.email", "a@example.org")
    repository("ckptool", "git", "install", "--global")
    other = Repository(tmp_path, "other")
    other.put("tuned.safetensors", "t.safetensors")
    other.commit("first")
    assert "fc.weight\tf32[10,16]" in other("git", "show")
    other("ckptool", "git", "uninstall", "--global")
    assert dotfiles.read_text() == "*.txt text\n"
    assert "ckptool" not in (tmp_path / ".gitconfig").read_text()


def test_the_users_own_place_for_attributes(repository: Repository, tmp_path: Path) -> None:
    repository("git", "config", "--global", "core.attributesFile", "~/my attributes")
    repository("ckptool", "git", "install", "--global")
    assert covered((tmp_path / "my attributes").read_text())


def test_status_names_a_program_that_is_gone(history: Repository) -> None:
    out = history("ckptool", "git", "status")
    assert "git diff, git log -p, git show   a line per tensor\n" in out
    assert "*.safetensors" in out
    assert "not there" not in out
    history("git", "config", "diff.ckptool.textconv", "'/gone/my ckptool' git textconv --")
    assert "/gone/my ckptool   (it is not there any more)" in history("ckptool", "git", "status")


def test_a_program_in_an_odd_place_is_quoted(repository: Repository, tmp_path: Path) -> None:
    program = tmp_path / "it's a $(touch pwned) venv" / "ckptool"
    program.parent.mkdir()
    program.symlink_to(Path(sys.executable).with_name("ckptool"))
    repository(str(program), "git", "install")
    repository.put("tuned.safetensors", "t.safetensors")
    repository.commit("first")
    assert "fc.weight\tf32[10,16]" in repository("git", "show")
    assert not (repository.folder / "pwned").exists()


def test_outside_of_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("HOME", str(tmp_path))
    cli: Run = runner(tmp_path, monkeypatch, capsys)
    assert cli("git", "install") == (
        2, "", "error: this is not a git repository\n  help: go into one, or set it up for all: --global\n"
    )  # fmt: skip
    assert cli("git", "install", "--pattern", "two words")[0] == 2
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli("git", "status")[2].startswith("error: git is not installed\n")


@pytest.mark.parametrize("text", ["", "*.txt text\n", "*.txt text\r\n*.pth -diff\r\n", "# comment\n\n*.pt diff=lfs\n"])
def test_lines_come_and_go(text: str) -> None:
    there = with_lines(text, ["*.pth", "*.pt"])
    assert covered(there) == ["*.pth", "*.pt"] or set(covered(there)) == {"*.pth", "*.pt"}
    assert with_lines(there, ["*.pth", "*.pt"]) == there
    assert without_lines(there) == text


def test_no_link_of_a_repository_is_written_through(repository: Repository, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("export PATH\n")
    for target in (victim, tmp_path / "absent"):
        (repository.folder / ".gitattributes").unlink(missing_ok=True)
        (repository.folder / ".gitattributes").symlink_to(target)
        done = repository.run("ckptool", "git", "install")
        assert done.returncode == 2
        assert "is written through" in done.stderr or "is not a file of gitattributes" in done.stderr
    assert victim.read_text() == "export PATH\n"
    assert not (tmp_path / "absent").exists()
    (repository.folder / ".gitattributes").unlink()
    assert repository.run("ckptool", "git", "install").returncode == 0


def test_status_is_narrow() -> None:
    with TemporaryDirectory() as folder:  # of a short name: a path in the output is never cut
        done = shell("git init -q . && ckptool git install && ckptool git status", Path(folder), COLUMNS="80")
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0 and len(lines) > 8
    assert max(map(len, lines)) <= 80
