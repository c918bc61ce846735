"""What a plan's output carries beside its tensors, and what it has to leave behind, once its name is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ckptool.commands.beside.optimizer import with_optimizer
from ckptool.core.checkpoint import Note
from ckptool.core.errors import UsageError
from ckptool.core.plan import Plan
from ckptool.engine.encode import container_of, left_behind
from ckptool.formats.torch.frame import Frame


def settled(
    plan: Plan,
    out: Path | None,
    *,
    only_weights: bool = False,
    drop_optimizer: bool = False,
    optimizer_as_is: bool = False,
    keep_unknown: bool = False,
) -> Plan:
    """The plan with what lies beside the weights brought along or left out.

    Args:
        plan: what to write.
        out: the output, whose ending says the format; None for a preview, which takes it to be the input's.
        only_weights: leave out everything that is not a weight.
        drop_optimizer: leave out optimizer state.
        optimizer_as_is: keep it unchanged, whatever happens to the parameters.
        keep_unknown: carry objects of unknown classes along.

    Raises:
        UsageError: for options that exclude each other.

    Example:
        >>> import ckptool
        >>> from ckptool.commands.filter import plan_filter
        >>> plan = plan_filter(ckptool.open("fixtures/training.ckpt"), [("drop", "module.fc.*")])
        >>> settled(plan, Path("body.ckpt")).problems[0].hint
        '--drop-optimizer leaves it out, --keep-optimizer-as-is keeps it unchanged'
        >>> settled(plan, Path("body.safetensors")).problems
        ()
    """
    if drop_optimizer and optimizer_as_is:
        raise UsageError("--drop-optimizer and --keep-optimizer-as-is exclude each other", hint="give one of them")
    if plan.frame is None:
        return plan
    source = plan.inputs[plan.frame]
    if only_weights:
        return replace(plan, frame=None, dropped_extras=tuple(extra.name for extra in source.extras))
    plan = replace(plan, keep_unknown=keep_unknown)
    if out is not None and container_of(out) != "torch":
        return plan
    if out is not None or drop_optimizer:
        return with_optimizer(plan, drop=drop_optimizer, as_is=optimizer_as_is)
    # a preview: what would stop a torch output need not stop the output that comes to be
    found = with_optimizer(plan, as_is=optimizer_as_is)
    notes = tuple(
        Note(f"for a torch output: {said.message}", said.hint) for said in found.problems[len(plan.problems) :]
    )
    return replace(found, problems=plan.problems, notes=(*plan.notes, *notes))


@dataclass(frozen=True, slots=True)
class Besides:
    """What lies beside the weights and what becomes of it.

    Attributes:
        kept: names of entries that the output carries.
        dropped: names of entries that were to be left out.
        lost: what the output's container cannot hold.
        why: what it holds instead.
        untaken: entries of further files of a recipe's input, which give tensors only.
    """

    kept: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    why: str = ""
    untaken: tuple[str, ...] = ()


def besides(plan: Plan, out: Path | None) -> Besides:
    """What becomes of everything that is not a tensor of the plan.

    Example:
        >>> import ckptool
        >>> from ckptool.commands.filter import plan_filter
        >>> plan = plan_filter(ckptool.open("fixtures/training.ckpt"))
        >>> besides(plan, Path("a.safetensors")).lost[:2]
        ('epoch', 'arch')
    """
    dropped = tuple(dict.fromkeys(plan.dropped_extras))
    more = plan.inputs[1:] if plan.command.name == "remap" else ()  # merges note it themselves
    untaken = tuple(f"{checkpoint.path.name}: {extra.name}" for checkpoint in more for extra in checkpoint.extras)
    kept: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    source = None if plan.frame is None else plan.inputs[plan.frame]
    to_torch = _is_torch(plan, out)
    why = "torch files have no place for it" if to_torch else "safetensors holds tensors only, .pth does not"
    if to_torch:
        names = () if source is None else tuple(extra.name for extra in source.extras if extra.name not in dropped)
        said = [name for name in plan.metadata if name != "format"]
        lost = (f"metadata ({', '.join(said[:4])}{', ...' if len(said) > 4 else ''})",) if said else ()
        if source is not None and isinstance(source.tree, Frame):
            kept = names
        elif names:
            lost, why = (*names, *lost), f"only tensors are taken out of {source.format if source else 'it'}"
    elif out is not None:
        lost = tuple(extra.name for extra in left_behind(plan, out))
        if plan.module_versions:
            lost = (*lost, f"module versions ({len(plan.module_versions)})")
    return Besides(kept, dropped, lost, why if lost else "", untaken)


def _is_torch(plan: Plan, out: Path | None) -> bool:
    if out is not None:
        return container_of(out) == "torch"
    return plan.frame is not None and isinstance(plan.inputs[plan.frame].tree, Frame)
