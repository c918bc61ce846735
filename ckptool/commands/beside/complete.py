"""Completes a plan for the container of its output: ties, what lies beside the weights, and what forbids it.

A command plans what becomes of the keys. All else depends on the container, and is decided here, before anything is
printed: a complete plan says everything that its output will hold.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from ckptool.commands.beside.choices import Choices
from ckptool.commands.beside.companions import companions, describes_model, is_folder, is_of_tokenizer
from ckptool.commands.beside.descriptions import with_decoded_reasons, with_renamed_descriptions
from ckptool.commands.beside.hf_config import CONFIG, GENERATION_CONFIG, edited_config, edited_generation, is_embedding
from ckptool.commands.beside.initial import with_initial
from ckptool.commands.beside.parameters import Optimizer, optimizers_of
from ckptool.commands.beside.ties import recorded_in_metadata, untied_notes, with_ties, written_apart
from ckptool.commands.consult import consulted
from ckptool.commands.filter import left_out
from ckptool.core.beside import Beside, Carried, Fate
from ckptool.core.checkpoint import Checkpoint, Note
from ckptool.core.errors import UsageError
from ckptool.core.format import QUANTIZATION_FILES
from ckptool.core.initial import INITIAL_KEY, initial_text
from ckptool.core.plan import Plan, Problem, sources_of
from ckptool.core.reasons import (
    ByOption,
    ConfigEdited,
    Follows,
    Kept,
    NoPlace,
    NotCarried,
    NotTaken,
    OnlyTensors,
    OnlyTensorsRead,
)
from ckptool.core.shell import shell_quote
from ckptool.core.ties import without_recorded_ties
from ckptool.engine.encode import refusals, writer_named
from ckptool.formats.registry import FOLDER, writer_like
from ckptool.formats.torch.frame import Frame

_NONE = Choices()


def container_like(checkpoint: Checkpoint) -> str:
    """The container of an output that is like an input: what a preview without an output's name shows."""
    if isinstance(checkpoint.tree, Frame):
        return "torch"
    if is_folder(checkpoint):
        return FOLDER.name
    writer = writer_like(checkpoint.format)
    return "safetensors" if writer is None or writer.keeps_objects else writer.name


def complete(plan: Plan, container: str, choices: Choices = _NONE) -> Plan:
    """The plan of the output in a container, with all that it holds and all that forbids it.

    Args:
        plan: what a command planned.
        container: of the output, by the name that the registry of formats has for it.
        choices: what the user says of what lies beside the weights.

    Returns:
        The complete plan; a plan that is complete for this container is returned as it is.

    Raises:
        UsageError: for options that exclude each other, or a plan that is complete already.

    Example:
        >>> import ckptool
        >>> from ckptool.commands.filter import plan_filter
        >>> plan = plan_filter(ckptool.open("fixtures/training.ckpt"), [("drop", "module.fc.*")])
        >>> complete(plan, "torch", Choices(optimizer_as_is=True)).problems
        ()
        >>> [beside.name for beside in complete(plan, "safetensors").beside if beside.fate == "lost"][:2]
        ['epoch', 'arch']
    """
    if choices.drop_optimizer and choices.optimizer_as_is:
        raise UsageError("--drop-optimizer and --keep-optimizer-as-is exclude each other", hint="give one of them")
    if plan.container is not None:
        if plan.container == container and choices == _NONE:
            return plan
        raise UsageError("the plan is complete already", hint="complete the plan that the command gave")
    if choices.wrap is not None:
        if not choices.wrap:
            raise UsageError("--wrap needs a name for the key", hint="--wrap state_dict")
        if not writer_named(container).keeps_objects:
            raise UsageError("--wrap nests the weights, which safetensors cannot", hint="write a .pth, or leave it out")
        plan = replace(plan, wrap=choices.wrap)
    writer = writer_named(container)
    plan = replace(with_initial(with_ties(plan)), container=container, keeps_ties=writer.keeps_objects)
    plan = replace(plan, keep_unknown=plan.keep_unknown or choices.keep_unknown)
    plan = replace(plan, takes_damaged="checksum" in choices.allow)
    if choices.only_weights and plan.frame is not None:
        plan = replace(plan, frame=None, beside=(*plan.beside, *left_out(plan.inputs[plan.frame])))
    plan = _with_objects(plan, choices) if writer.keeps_objects else _without_objects(plan, choices)
    plan = with_decoded_reasons(with_renamed_descriptions(plan))
    plan = _with_metadata(plan, choices) if writer.keeps_metadata else _without_metadata(plan)
    others, files, named = _companions(plan, carries=writer.is_folder)
    notes = (*plan.notes, *untied_notes(plan), *_other_weights(plan, choices), *named)
    plan = replace(plan, beside=(*plan.beside, *_of_further_inputs(plan), *others), notes=notes, files=files)
    plan = consulted(plan, choices.allow, loads=plan.command.name == "transplant")
    return replace(plan, problems=(*plan.problems, *_refusals(plan)))


def _with_objects(plan: Plan, choices: Choices) -> Plan:
    """What such a file carries: the frame's other contents, with the optimizer's state following the weights."""
    source = None if plan.frame is None else plan.inputs[plan.frame]
    beside: list[Beside] = []
    if source is not None and isinstance(source.tree, Frame):
        from ckptool.commands.beside.joined import with_joined
        from ckptool.commands.beside.optimizer import with_optimizers

        left = set(plan.left_entries)
        optimizers = optimizers_of([extra for extra in source.extras if extra.name not in left])
        plan = with_optimizers(plan, optimizers, drop=choices.drop_optimizer, as_is=choices.optimizer_as_is)
        plan = with_joined(plan, source)
        edited = {id(node) for node, _ in plan.replaced_nodes}
        kept = _carried(source, optimizers, edited, drop=choices.drop_optimizer)
        beside += [_left(each, left) for each in kept]
    elif source is not None:
        beside += [Beside(extra.name, Fate.LOST, OnlyTensorsRead()) for extra in source.extras]
    return replace(plan, beside=(*plan.beside, *beside))


def _left(beside: Beside, left: Collection[str]) -> Beside:
    """An entry that --drop names is left out."""
    if beside.name not in left:
        return beside
    return replace(beside, fate=Fate.DROPPED, reason=ByOption("--drop", beside.name))


def _carried(source: Checkpoint, optimizers: list[Optimizer], edited: set[int], *, drop: bool) -> Iterator[Beside]:
    """The frame's other contents in a file that keeps them."""
    for extra in source.extras:
        inside = [optimizer for optimizer in optimizers if optimizer.extra == extra.name]
        if drop and inside:
            yield from (Beside(optimizer.name, Fate.DROPPED, ByOption("--drop-optimizer")) for optimizer in inside)
            if any(optimizer.name == extra.name for optimizer in inside):
                continue
        is_edited = any(id(optimizer.node) in edited for optimizer in inside)
        yield Beside(extra.name, Fate.EDITED if is_edited else Fate.KEPT, Follows() if is_edited else Kept())


def _without_objects(plan: Plan, choices: Choices) -> Plan:
    """What a file of tensors loses."""
    beside: list[Beside] = []
    if plan.frame is not None:
        source = plan.inputs[plan.frame]
        names = {optimizer.name for optimizer in optimizers_of(source.extras)} if choices.drop_optimizer else set()
        for extra in source.extras:
            dropped = extra.name in names
            reason = ByOption("--drop-optimizer") if dropped else OnlyTensors()
            beside.append(Beside(extra.name, Fate.DROPPED if dropped else Fate.LOST, reason))
    if plan.module_versions:
        beside.append(Beside(f"module versions ({len(plan.module_versions)})", Fate.LOST, OnlyTensors()))
    return replace(plan, beside=(*plan.beside, *beside))


def _with_metadata(plan: Plan, choices: Choices) -> Plan:
    """The metadata of an output, which records ties."""
    plan = recorded_in_metadata(plan, keep_first=choices.tied == "keep-first")
    metadata = dict(plan.metadata)
    is_new = plan.command.name == "transplant"  # a model's file, whatever the source says of itself
    if is_new or not all(checkpoint.format.has_metadata for checkpoint in plan.inputs):
        metadata.setdefault("format", "pt")  # transformers refuses files that do not say which framework wrote them
    if plan.initial:
        metadata[INITIAL_KEY] = initial_text(plan.initial)
    return replace(plan, metadata=metadata)


def _without_metadata(plan: Plan) -> Plan:
    """What is lost of the metadata; ties are no part of it."""
    metadata = dict(plan.metadata)
    for checkpoint in plan.inputs:
        metadata = without_recorded_ties(metadata, checkpoint)
    metadata.pop("format", None)
    if metadata:
        names = ", ".join(list(metadata)[:4]) + (", ..." if len(metadata) > 4 else "")
        plan = replace(plan, beside=(*plan.beside, Beside(f"metadata ({names})", Fate.LOST, NoPlace())))
    return plan if plan.keeps_ties else written_apart(plan)


def _of_further_inputs(plan: Plan) -> Iterator[Beside]:
    """What the other files of a recipe's input hold beside their tensors: not taken."""
    if plan.command.name == "remap":
        for number, checkpoint in enumerate(plan.inputs[1:], 1):
            yield from (Beside(extra.name, Fate.LOST, NotTaken(), number) for extra in checkpoint.extras)


def _companions(plan: Plan, *, carries: bool) -> tuple[list[Beside], tuple[Carried, ...], tuple[Note, ...]]:
    """The other files of the first input's folder: a folder output carries them, edited where they would be untrue."""
    if carries and plan.command.name == "transplant":
        return _of_both_folders(plan)
    names = companions(plan.inputs[0])
    if not carries:
        return [Beside(name, Fate.LOST, NotCarried()) for name in names], (), ()
    edits = {CONFIG: edited_config(plan)} if CONFIG in names else {}
    if GENERATION_CONFIG in names and plan.tokenizer is not None:
        edits[GENERATION_CONFIG] = edited_generation(plan)
    beside, files = [], []
    for name in names:
        if plan.tokenizer is not None and is_of_tokenizer(name):
            if all(name != file.name for file in plan.tokenizer):
                beside.append(Beside(name, Fate.DROPPED, ByOption("--tokenizer")))
            continue
        if name in QUANTIZATION_FILES and plan.inputs[0].is_decoded:
            beside.append(Beside(name, Fate.DROPPED, ByOption("--dequantize")))
            continue
        edit = edits.get(name)
        text = None if edit is None else edit.text
        files.append(Carried(name, text))
        reason = Kept() if edit is None or text is None else ConfigEdited(edit.changes)
        beside.append(Beside(name, Fate.KEPT if text is None else Fate.EDITED, reason))
    for file in plan.tokenizer or ():
        files.append(file)
        beside.append(Beside(file.name, Fate.EDITED, ByOption("--tokenizer")))
    return beside, tuple(files), tuple(note for edit in edits.values() for note in edit.notes)


def _of_both_folders(plan: Plan) -> tuple[list[Beside], tuple[Carried, ...], tuple[Note, ...]]:
    """A transplant into a checkpoint: what describes the model is the target's, for so are the keys and shapes.

    The tokenizer and the other files are the source's, which was trained with them, where it has them and its
    embeddings are taken; else they are the target's, too.
    """
    own = companions(plan.inputs[0])
    if len(plan.inputs) < 2 or not (theirs := companions(plan.inputs[1])):
        return [Beside(name, Fate.LOST, NotCarried()) for name in own], (), ()
    tables = [step for step in plan.steps if is_embedding(step.target.key)]
    takes_text = all(source.input == 0 for step in tables for source in sources_of(step.value))
    has_text = any(is_of_tokenizer(name) for name in own)
    beside, files = [], []
    for name in dict.fromkeys([*theirs, *own]):
        of_text = is_of_tokenizer(name)
        from_source = name in own and not describes_model(name) and (takes_text or not of_text)
        if not from_source and (name not in theirs or (of_text and has_text and takes_text)):
            continue
        files.append(Carried(name, input=0 if from_source else 1))
        beside.append(Beside(name, Fate.KEPT, Kept(), 0 if from_source else 1))
    return beside, tuple(files), ()


def _other_weights(plan: Plan, choices: Choices) -> Iterator[Note]:
    """Who picks the second set of weights of a file gets a file in which it is still the second."""
    if plan.frame is None or not choices.selected:
        return
    selection = plan.inputs[plan.frame].selection
    kept = {beside.name for beside in plan.beside if beside.fate in (Fate.KEPT, Fate.EDITED)}
    if others := set(selection.others) & kept:
        yield Note(
            f'the output keeps other weights beside "{selection.name}": {", ".join(sorted(others))}',
            "a loader may take those; --only-weights writes the chosen ones alone",
        )


def _refusals(plan: Plan) -> Iterator[Problem]:
    """What forbids to write the plan, where nothing else forbids it already."""
    if plan.problems:
        return
    if not plan.steps:
        hint = f"leave out less; the keys: ckptool inspect {shell_quote(plan.inputs[0].path)}"
        yield Problem("nothing is left: the output would hold no tensor", hint)
        return
    for error in refusals(plan):
        yield Problem(error.message, error.hint or "", () if error.key is None else (error.key,), type(error))
