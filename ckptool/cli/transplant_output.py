"""From a transplant to what is printed and written: the report, the weights, the recipe, the list, the snippet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from ckptool.cli.reports import show_blocks, show_document, write_reports
from ckptool.cli.texts import write_texts
from ckptool.cli.writing import Request, completed, is_complete_already, mode_of, require_writable, say, write
from ckptool.core.errors import Exit, UsageError

if TYPE_CHECKING:
    from ckptool.cli.probing import Probe
    from ckptool.commands.transplant.result import Transplant
    from ckptool.core.plan import Plan
    from ckptool.engine.apply import Written
    from ckptool.models import Target, Verdict
    from ckptool.models.probing.report import ProbeReport


@dataclass(frozen=True, slots=True)
class Extras:
    """What is written or printed beside the weights."""

    recipe: PurePath | None
    freeze: PurePath | None
    snippet: bool
    arguments: Mapping[str, object]
    wrap: str | None
    depth: int | None
    strict: bool
    seed: int
    probe: Probe | None


def carry_out(done: Transplant, request: Request, extras: Extras) -> int:
    """Shows a transplant and, if nothing forbids it, writes what was asked for; gives the exit code."""
    from ckptool.report.document_plan import plan_document
    from ckptool.report.document_transplant import transplant_document
    from ckptool.report.json_transplant import Done

    texts = _texts(done, request, extras)
    request = replace(request, texts=texts)
    limit = require_writable(done.plan, request)
    plan = completed(done.plan, request)
    done = replace(done, plan=plan)
    if request.out is not None or request.to is not None:
        _require_nesting(plan, extras.wrap)
    proof = None
    if extras.probe is not None and not plan.problems:
        from ckptool.models.probing.report import unproven

        proof = extras.probe.run(done, extras.seed)
        plan = replace(plan, unmet=(*plan.unmet, *unproven(proof)))
        done = replace(done, plan=plan)
    is_complete = is_complete_already(plan, request, limit)
    is_said = is_complete and request.form == "text"
    if request.form == "text" and not request.is_silent:
        came = Done(probe=proof)
        if is_complete:
            before = plan_document(plan, request.names, "complete", verbose=request.verbose)
        else:
            before = transplant_document(done, request.names[0], mode_of(request), came, extras.depth, request.verbose)
        show_document(before, "text", request.color, pager=request.out is None and not request.no_pager)
    code = Exit.TROUBLE if plan.problems else Exit.DIFFERENT if plan.unmet else Exit.OK
    written, loads = None, None
    files: list[str] = []
    if code is Exit.OK and request.dry_run:
        if request.out is not None and _falls_short(_would_load(done), done, extras):
            code = Exit.DIFFERENT
    elif code is Exit.OK:
        if request.out is not None:
            written = write(plan, request.out, request, limit, says_notes=not is_said)
        if not request.is_silent and (written is None or not written.missing):
            if request.out is not None:
                loads = _loads(done.target, request.out, extras.wrap)
                if _falls_short(loads, done, extras):
                    code = Exit.DIFFERENT
            files = write_texts(texts, force=request.force)
    if not request.is_silent and not (is_said and code is Exit.OK):
        _report(done, request, extras, proof, written, loads, files, code)
    say([*plan.problems, *plan.unmet])
    return code


def _texts(done: Transplant, request: Request, extras: Extras) -> dict[PurePath, str]:
    """The further files and what is to stand in them."""
    from ckptool.report.transplant_files import freeze_list
    from ckptool.report.transplant_recipe import transplant_recipe
    from ckptool.storage.targets import check_distinct

    check_distinct([path for path in (extras.recipe, extras.freeze) if path is not None])
    texts: dict[PurePath, str] = {}
    if extras.recipe is not None:
        texts[extras.recipe] = "".join(transplant_recipe(done, request.names[0], extras.recipe.name))
    if extras.freeze is not None:
        texts[extras.freeze] = "".join(freeze_list(done, request.names[0]))
    return texts


def _require_nesting(plan: Plan, wrap: str | None) -> None:
    """Refuses to nest weights where the output has no levels."""
    from ckptool.engine.encode import writer_of

    if wrap is not None and not writer_of(plan).keeps_objects:
        raise UsageError(
            f"--wrap nests the weights, which {writer_of(plan).file_kind} cannot", hint="write a .pth, or leave it out"
        )


def _falls_short(loads: Verdict, done: Transplant, extras: Extras) -> bool:
    """True if torch would not load the output strictly though --strict wants it."""
    return extras.strict and not loads.strict and not done.asked.only_loaded


def _would_load(done: Transplant) -> Verdict:
    """What torch would say of the output."""
    from ckptool.engine.encode import writer_of
    from ckptool.models import strict_verdict

    plan = done.plan
    specs = {step.target.key: step.target for step in plan.steps if step.stored}
    return strict_verdict(done.target, specs, plan.module_versions if writer_of(plan).keeps_objects else None)


def _loads(target: Target, out: PurePath, wrap: str | None) -> Verdict:
    """What torch says of the file as it was written: its headers are read again."""
    from ckptool.formats.opening import open_checkpoint
    from ckptool.models import strict_verdict

    again = open_checkpoint(out, wrap)
    return strict_verdict(target, {key: tensor.spec for key, tensor in again.items()}, again.module_versions)


# ---------------------------------------------------------------------------------------------- saying it


def _report(
    done: Transplant,
    request: Request,
    extras: Extras,
    proof: ProbeReport | None,
    written: Written | None,
    loads: Verdict | None,
    files: Sequence[str],
    code: Exit,
) -> None:
    """What came of it, in the format asked for."""
    from ckptool.report.document_transplant import done_blocks, transplant_document
    from ckptool.report.json_transplant import Done

    name, mode = request.names[0], mode_of(request)
    lines = _snippet(done, request, extras) if extras.snippet and code is Exit.OK else None
    came = Done(written, loads, code, lines, proof)
    document = transplant_document(done, name, mode, came, extras.depth, request.verbose)
    if request.form != "text":
        show_document(document, request.form)
    elif code is Exit.OK or written is not None:
        from ckptool.report.document_plan import unwritten_blocks

        end = () if written is not None else unwritten_blocks(files, mode, found=True)
        show_blocks([*done_blocks(done, came, str(request.out), files), *end], request.color)
    write_reports(request.reports, document)


def _snippet(done: Transplant, request: Request, extras: Extras) -> str:
    from ckptool.report.transplant_files import snippet

    container = "torch" if request.out is None else done.plan.container
    return "".join(snippet(done, extras.arguments, request.out or PurePath("transplanted.pth"), container, extras.wrap))
