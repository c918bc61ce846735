"""``ckptool check``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated

import typer

from ckptool.cli.common import PATH, Color, ColorOption, DebugOption, JsonOption, QuietOption, ThreadsOption
from ckptool.cli.reports import (
    FormatOption,
    ReportOption,
    add_summary,
    form_of,
    on_github,
    require_reports,
    show_document,
    write_reports,
)
from ckptool.cli.sharing import ReadPartOption, ReadTogetherOption, WorkOption, asked_reading, together
from ckptool.core.errors import Exit, UsageError
from ckptool.report.escape import terminal
from ckptool.storage.paths import exists, files_below, is_folder

if TYPE_CHECKING:
    from ckptool.commands.checks.finding import Level, Report
    from ckptool.commands.checks.policy import Policy
    from ckptool.report.text import Line

EPILOG = """\
Examples:
  ckptool check weights/
  ckptool check weights/ --into torchvision:resnet18 --fail-on warning
  ckptool check weights/ --report report.html --report junit.xml

Exit codes: 0 clean; 1 findings; 2 it could not be checked"""


class FailOn(StrEnum):
    """The mildest finding that counts."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


def complete_rules(incomplete: str) -> list[str]:
    """Names of rules."""
    from ckptool.commands.checks import RULES

    return [name for name in RULES if name.startswith(incomplete)]


def _explain(name: str | None) -> None:
    if name is None:
        return
    from ckptool.cli.output import print_lines, stdout_screen
    from ckptool.commands.checks import explain_rule, rule_named
    from ckptool.report.text import Span, wrap

    rule = rule_named(name)
    screen = stdout_screen(Color.AUTO)
    lines: list[Line] = [(Span(f"{rule.level}[{rule.name}]", "bold"),)]
    for paragraph in explain_rule(name).split("\n\n"):
        lines.append(())
        if paragraph.startswith(" "):  # an example
            lines += ((Span(line),) for line in paragraph.splitlines())
        else:
            lines += ((Span(line),) for line in wrap(" ".join(paragraph.split()), screen, indent=""))
    print_lines(lines, screen, pager=False)
    raise typer.Exit


def _list_rules(asked: bool) -> None:
    if not asked:
        return
    from ckptool.cli.values import print_list
    from ckptool.commands.checks import RULES, explain_rule

    print_list("rule", "what it finds", [(name, explain_rule(name).partition("\n")[0]) for name in RULES])
    raise typer.Exit


def check(
    paths: Annotated[
        list[PurePath] | None,
        typer.Argument(path_type=PATH, metavar="PATHS...", help="Checkpoints, and folders to search for them."),
    ] = None,
    policy: Annotated[
        PurePath | None,
        typer.Option(
            "--policy",
            path_type=PATH,
            metavar="FILE",
            help="Use this policy instead of the nearest ckptool.toml or pyproject.toml.",
        ),
    ] = None,
    into: Annotated[
        str | None,
        typer.Option(
            "--into", metavar="MODEL", help="They must fit this: torchvision:NAME, net.py:CLASS, or a checkpoint."
        ),
    ] = None,
    model_arg: Annotated[
        list[str] | None,
        typer.Option("--model-arg", metavar="NAME=VALUE", help="An argument for the model of --into; repeats."),
    ] = None,
    complete_with: Annotated[
        PurePath | None,
        typer.Option(
            "--complete-with", path_type=PATH, metavar="BASE", help="They must have all tensors of this checkpoint."
        ),
    ] = None,
    trust_policy: Annotated[
        bool,
        typer.Option("--trust-policy", help="The policy may run the code of models and name files outside its folder."),
    ] = False,
    rule: Annotated[
        list[str] | None,
        typer.Option("--rule", metavar="RULE", help="Only this rule; repeats.", autocompletion=complete_rules),
    ] = None,
    fail_on: Annotated[
        FailOn | None,
        typer.Option("--fail-on", metavar="LEVEL", help="error, warning or note: what makes it end with 1."),
    ] = None,
    update_lock: Annotated[
        bool, typer.Option("--update-lock", help="Write the lock file that the policy names.")
    ] = False,
    explain: Annotated[
        str | None,
        typer.Option(
            "--explain",
            metavar="RULE",
            help="What a rule finds, why, and what to do.",
            callback=_explain,
            is_eager=True,
            autocompletion=complete_rules,
        ),
    ] = None,
    rules: Annotated[
        bool, typer.Option("--rules", callback=_list_rules, is_eager=True, help="List the rules.")
    ] = False,
    models: Annotated[
        bool, typer.Option("--models", help="List the models that the policy names; these need torch.")
    ] = False,
    threads: ThreadsOption = 2,
    distributed: ReadTogetherOption = False,
    part: ReadPartOption = None,
    work: WorkOption = None,
    form: FormatOption = "text",
    json: JsonOption = False,
    report: ReportOption = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Every detail.", rich_help_panel="Output")] = False,
    color: ColorOption = Color.AUTO,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> int:
    """Check checkpoints: readable, safe, finite, and as a policy requires.

    The policy is ckptool.toml or [tool.ckptool.check] of pyproject.toml; without one, the rules that
    always hold are checked. On GitHub Actions it annotates the lines of the policy and adds to the job summary.
    """
    from ckptool.cli.output import print_texts
    from ckptool.commands.checks.policy import find_policy, read_policy
    from ckptool.commands.checks.typed import with_base, with_model
    from ckptool.report.document_check import check_document
    from ckptool.report.encoders import encoder_named

    if update_lock and rule and "lock" not in rule:
        raise UsageError("--update-lock writes what the rule lock reads, and --rule leaves it out", hint="--rule lock")
    reading = asked_reading(part, distributed, work)
    form = form_of(form, json)
    files = report or []
    require_reports(files, _weights(paths or []) if any(exists(file) for file in files) else ())
    asked = with_model(find_policy() if policy is None else read_policy(policy), into, _arguments(model_arg or []))
    asked = replace(with_base(asked, complete_with), is_trusted=trust_policy)
    if models:
        return _list_models(asked)
    _require_own_files(files, asked)
    level: Level = fail_on.value if fail_on else asked.fail_on or "error"
    found = together(lambda: _checked(paths or [], asked, rule, threads, update_lock, quiet), reading)
    if found is None:
        return Exit.OK
    about = dict(_about(found))
    document = check_document(found, about, level, verbose)
    show_document(document, form, color, pager=False)
    if form == "text" and on_github():
        print_texts(encoder_named("github").encode(document))
        add_summary(document)
    write_reports(files, check_document(found, about, level, verbose=True))
    return found.exit_code(level)


def _require_own_files(reports: list[PurePath], policy: Policy) -> None:
    """Refuse reports in the place of the policy or of a lock, which may be written too."""
    from ckptool.commands.checks.lock import LOCK
    from ckptool.storage.targets import check_distinct

    settings = (policy.settings, *(narrower for _, narrower in policy.paths))
    locks = dict.fromkeys(policy.folder / lock.value for each in settings if (lock := each.get(LOCK)))
    require_reports(reports, [policy.file] if policy.file else [])
    check_distinct([*reports, *locks])


def _weights(paths: list[PurePath]) -> Iterator[PurePath]:
    """Files that are read, by their names; an old report in a folder of weights is none."""
    from ckptool.formats.registry import read_endings

    for path in paths:
        yield path
        if is_folder(path):
            yield from (file for file in files_below(path) if file.name.endswith(read_endings()))


def _arguments(texts: list[str]) -> dict[str, object]:
    """`--model-arg` as values; torch is for models, and what reads them stands beside it."""
    if not texts:
        return {}
    from ckptool.models.arguments import parse_model_args

    return parse_model_args(texts)


def _list_models(policy: Policy) -> int:
    """Prints what the policy wants files to fit and what is no file: a model, which only torch can build."""
    from ckptool.commands.checks.fits import INTO

    settings = (policy.settings, *(narrower for _, narrower in policy.paths))
    named = dict.fromkeys(into.value for each in settings if (into := each.get(INTO)))
    for spec in named:
        if not exists(policy.folder / spec):
            print(terminal(spec))
    return Exit.OK


def _checked(
    paths: list[PurePath], policy: Policy, rules: list[str] | None, threads: int, update_lock: bool, quiet: bool
) -> Report:
    from ckptool.cli.progress import Progress
    from ckptool.commands.checks.run import run_checks
    from ckptool.commands.checks.typed import without_typed_places

    with Progress("checking", quiet) as progress:
        found = run_checks(paths, policy, rules=rules, threads=threads, progress=progress, update_lock=update_lock)
    return without_typed_places(found)


def _about(report: Report) -> Iterator[tuple[str, str]]:
    """What each rule is about, in a sentence."""
    from ckptool.commands.checks import explain_rule

    return ((rule, explain_rule(rule).partition("\n")[0]) for rule in report.rules)
