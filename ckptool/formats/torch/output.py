"""The pickle of a torch output: the frame input's objects, with the plan's tensors in the place of its weights.

What is not weights (epoch, optimizer, a second set of weights) stays what it was: the same inert objects, pickled
again. How the tensors themselves are written is in `ckptool.formats.torch.nodes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ckptool.core.checkpoint import Checkpoint
from ckptool.core.counts import many
from ckptool.core.errors import CkptError, PlanError, UnsafeError
from ckptool.core.initial import INITIAL_KEY, initial_text
from ckptool.core.plan import Plan, Step, sources_of
from ckptool.formats.pickle.dump import dump
from ckptool.formats.pickle.objects import Call, Dict, Global, Persistent, Set
from ckptool.formats.torch.edit import REMOVED, each_below, substitute
from ckptool.formats.torch.entries import renamed_entry, without_entries
from ckptool.formats.torch.frame import Frame
from ckptool.formats.torch.names import key_text
from ckptool.formats.torch.nodes import Nodes, judged
from ckptool.formats.torch.storage import is_storage_id
from ckptool.formats.torch.tensor import is_tensor
from ckptool.formats.torch.walk import is_mapping
from ckptool.formats.torch.zip_write import zip_image
from ckptool.formats.writer import Loading, Output

_PROTOCOL = 2  # what torch writes, and what torch.load(weights_only=True) reads
_NESTED_NAMES = 4  # the first protocol that can name a class inside a class


def torch_output(plan: Plan, name: str, limit: int) -> Output:
    """Lay out the torch archive of a plan; it is one file.

    Raises:
        UnsafeError: if the output would carry objects of unknown classes and the plan does not say to keep them, or
            objects that would run code.
        PlanError: if the keys cannot be written into the frame as it is nested.
    """
    root, nodes, place, protocol = _objects(plan)
    data_pkl = dump(root, protocol, persistent=nodes.persistent_id)
    return Output.of(
        {name: zip_image(data_pkl, nodes.records, _own_records(plan))}, tuple(step.target for step in plan.steps), place
    )


def _own_records(plan: Plan) -> dict[str, bytes]:
    """Records that torch does not read."""
    return {INITIAL_KEY: initial_text(plan.initial).encode("ascii")} if plan.initial else {}


def torch_loading(path: str, wrap: str | None) -> Loading:
    """How torch loads the file."""
    return Loading(f"torch.load({path!r}, weights_only=True){f'[{wrap!r}]' if wrap else ''}")


def torch_refusal(plan: Plan) -> CkptError | None:
    """Why the plan's torch file cannot be written; None if it can. See `torch_output` for the errors."""
    try:
        _objects(plan)
    except CkptError as error:
        return error
    return None


def _objects(plan: Plan) -> tuple[object, Nodes, str, int]:
    """The objects to pickle, the tensors in them, the dotted path of the weights, and the protocol."""
    frame = frame_of(plan)
    if frame is not None and not frame.faithful:
        raise UnsafeError(
            "the file's pickle does things that no checkpoint needs, so what lies beside the weights cannot be kept",
            hint="--only-weights leaves it behind",
            path=None if plan.frame is None else plan.inputs[plan.frame].path,
        )
    nodes = Nodes(plan, frame)
    weights = [(step.target.key, nodes.node(index)) for index, step in enumerate(plan.steps)]
    if frame is None or plan.frame is None:
        root: object = _state_dict(weights, plan.module_versions)
        place = ""
    else:
        root = _framed(plan, plan.inputs[plan.frame], frame, weights)
        moved = {id(moved.place): nodes.node(len(plan.steps) + number) for number, moved in enumerate(plan.moved)}
        root = substitute(root, moved)
        place = plan.inputs[plan.frame].selection.name
    if plan.wrap:
        root, place = _wrapped(root, place, plan.wrap), plan.wrap
    names, references = _survey(root)
    _refuse_unknown(names, plan)
    # legacy files hide the class of a pickled module in a reference; archives do not know such references
    root = substitute(root, {id(node): _class_of(node) for node in references if not is_storage_id(node.pid)})
    protocol = _NESTED_NAMES if any("." in node.name for node in names) else _PROTOCOL
    for node in references:
        if is_storage_id(node.pid):
            nodes.require_copyable(node)
    return root, nodes, place, protocol


def _wrapped(root: object, place: str, key: str) -> object:
    """The objects with the weights under a key: a bare state dict is put there, weights under another key are moved.

    Raises:
        PlanError: the key is taken, or the weights lie deeper.
    """
    if not place:
        return Dict([(key, root)])
    entries = root.items if isinstance(root, (Dict, Call)) else []
    names = [name for name, _ in entries if isinstance(name, str)]
    if place not in names:
        raise PlanError(
            f'the weights are under "{place}", so --wrap cannot move them', hint="--only-weights writes them alone"
        )
    if key != place and key in names:
        raise PlanError(f'the file has another entry "{key}"', hint="--only-weights writes the weights alone")
    return renamed_entry(root, place, key)


def frame_of(plan: Plan) -> Frame | None:
    """The objects around the weights of the plan's frame input, if it is a torch file."""
    tree = None if plan.frame is None else plan.inputs[plan.frame].tree
    return tree if isinstance(tree, Frame) else None


def _framed(plan: Plan, source: Checkpoint, frame: Frame, weights: list[tuple[str, object]]) -> object:
    """The frame's root with new weights in it; what lies beside them is not touched, but for the plan's own edits."""
    beside: dict[int, object] = {id(extra.node): extra.node for extra in source.extras}
    if frame.is_flat:
        new = _refilled(plan, source, frame, weights)
    elif frame.is_module:
        new = _state_dict(weights, plan.module_versions)
    else:
        new = substitute(frame.weights, beside | _in_place(plan, source, frame, dict(weights)))
    root = substitute(frame.root, beside | {id(frame.weights): new})
    root = substitute(root, {id(old): node for old, node in plan.replaced_nodes})
    return without_entries(root, plan.left_entries)


def _class_of(node: Persistent) -> object:
    if isinstance(node.pid, tuple) and len(node.pid) == 4 and node.pid[0] == "module":
        return node.pid[1]
    raise PlanError("the file refers to something that is not a storage", hint="--only-weights leaves it behind")


def _in_place(plan: Plan, source: Checkpoint, frame: Frame, weights: Mapping[str, object]) -> dict[int, object]:
    """Edits of nested dicts: tensors stay where they are or are left out; keys cannot change."""
    new = [key for key in weights if key not in source.tensors]
    if new:
        raise PlanError(
            f"the weights are in nested dicts, so {many(len(new), 'key')} cannot get new names there: {new[0]}",
            hint="--select one dict, or --only-weights to write a flat state dict",
            key=new[0],
        )
    edits: dict[int, object] = {}
    for key, tensor in source.tensors.items():
        replacement = weights.get(key, REMOVED)
        if edits.setdefault(id(tensor.node), replacement) is not replacement:
            raise PlanError(
                f"{key} is one object with another key that is kept",
                hint="--only-weights writes a flat state dict",
                key=key,
            )
    if len(weights) < len(source.tensors):
        inside = _containers(frame.weights, edits, {id(extra.node) for extra in source.extras})
        _leave_out_emptied(frame.weights, inside, edits)
        edits |= _nested_versions(plan, inside, edits)
    return edits


def _containers(root: object, edits: Mapping[int, object], shut: set[int]) -> list[tuple[object, str]]:
    """The containers around nested weights with their dotted names, outermost first."""
    found: list[tuple[object, str]] = [(root, "")]
    seen = {id(root), *shut}
    for node, name in found:  # grows as it goes
        for key, child in _entries(node):
            if id(child) not in seen and id(child) not in edits and not is_tensor(child):
                seen.add(id(child))
                found.append((child, f"{name}.{key_text(key)}" if name else key_text(key)))
    return found


def _entries(node: object) -> list[tuple[object, object]]:
    if isinstance(node, (list, tuple)):
        return list(enumerate(node))
    if isinstance(node, Set):
        return list(enumerate(node.values))
    return [*node.items] if isinstance(node, (Dict, Call)) and is_mapping(node) else []


def _leave_out_emptied(root: object, inside: Sequence[tuple[object, str]], edits: dict[int, object]) -> None:
    """Leave out containers whose tensors are all left out. Of a list either all or none are, for it counts them."""
    for node, name in reversed(inside):
        entries = _entries(node)
        gone = [edits.get(id(child)) is REMOVED for _, child in entries]
        if gone and all(gone) and node is not root:
            edits[id(node)] = REMOVED
        elif any(gone) and not is_mapping(node):
            raise PlanError(
                f"{name or 'the file'} is a list, of which tensors cannot be left out one by one",
                hint="--only-weights writes a flat state dict",
            )


def _nested_versions(
    plan: Plan, inside: Sequence[tuple[object, str]], edits: Mapping[int, object]
) -> dict[int, object]:
    """Edits of the module versions of nested dicts: those that the plan keeps."""
    found: dict[int, object] = {}
    for node, name in inside:
        if id(node) in edits or not isinstance(node, Call) or not any(id(child) in edits for _, child in node.items):
            continue
        for old in _metadata_of(node):
            kept: list[tuple[object, object]] = [
                (module, facts)
                for module, facts in old.items
                if isinstance(module, str) and ".".join(filter(None, (name, module))) in (plan.module_versions or {})
            ]
            new = Call(old.how, old.fn, old.args, old.kwargs)
            new.items = kept
            found[id(old)] = new
    return found


def _metadata_of(node: Call) -> list[Call]:
    """torch's ``_metadata``, an attribute of an OrderedDict."""
    states = [state for state in node.states if isinstance(state, Dict)]
    return [value for state in states for name, value in state.items if name == "_metadata" and isinstance(value, Call)]


def _refilled(plan: Plan, source: Checkpoint, frame: Frame, weights: list[tuple[str, object]]) -> object:
    """A dict like the frame's with other tensors; what else was in it stays, where it was."""
    items = _between(plan, source, frame, weights)
    old = frame.weights
    if not isinstance(old, Call):
        return Dict(items)
    args = old.args
    if isinstance(args, tuple) and args and isinstance(args[-1], (list, Dict)):  # they hold the entries
        args = args[:-1]
    new = Call(old.how, old.fn, args, old.kwargs)
    new.items, new.appended, new.states = items, old.appended, old.states
    if plan.module_versions != source.module_versions:
        new.states = [_with_versions(state, plan.module_versions) for state in old.states]
    return new


def _between(
    plan: Plan, source: Checkpoint, frame: Frame, weights: list[tuple[str, object]]
) -> list[tuple[object, object]]:
    """The new tensors in the plan's order, and the dict's other entries after as many of its tensors as before."""
    places = {key: number for number, key in enumerate(source.tensors)}
    others: list[tuple[int, tuple[object, object]]] = []
    passed = 0
    for pair in frame.entries:
        if isinstance(pair[0], str) and is_tensor(pair[1]):
            passed += 1
        else:
            others.append((passed, pair))
    items: list[tuple[object, object]] = []
    others.reverse()
    for step, pair in zip(plan.steps, weights, strict=True):
        place = _place_in_frame(plan, step, places)
        while others and place is not None and others[-1][0] <= place:
            items.append(others.pop()[1])
        items.append(pair)
    return items + [pair for _, pair in reversed(others)]


def _place_in_frame(plan: Plan, step: Step, places: Mapping[str, int]) -> int | None:
    """The number of the frame's tensor that a step begins with."""
    return next((places[source.key] for source in sources_of(step.value) if source.input == plan.frame), None)


def _with_versions(state: object, versions: Mapping[str, int] | None) -> object:
    if not isinstance(state, Dict):
        return state
    old: dict[str, object] = {}
    for name, value in state.items:
        if name == "_metadata" and isinstance(value, Call):
            old = {module: facts for module, facts in value.items if isinstance(module, str)}
    kept = [(name, value) for name, value in state.items if name != "_metadata"]
    if versions is not None:
        kept.append(("_metadata", _metadata(versions, old)))
    return Dict(kept)


def _state_dict(weights: Sequence[tuple[str, object]], versions: Mapping[str, int] | None) -> object:
    """An OrderedDict as `module.state_dict()` gives."""
    new = Call("reduce", Global("collections", "OrderedDict"), ())
    new.items = list(weights)
    if versions is not None:
        new.states = [Dict([("_metadata", _metadata(versions, {}))])]
    return new


def _metadata(versions: Mapping[str, int], old: Mapping[str, object]) -> object:
    """Module versions; a module that keeps its name keeps whatever else the file says of it."""
    items: list[tuple[object, object]] = []
    for module, version in versions.items():
        facts = old.get(module)
        same = isinstance(facts, Dict) and dict(_facts(facts)).get("version") == version
        items.append((module, facts if same else Dict([("version", version)])))
    new = Call("reduce", Global("collections", "OrderedDict"), ())
    new.items = items
    return new


def _facts(facts: Dict) -> list[tuple[str, object]]:
    """What the file says of a module, by name."""
    return [(name, value) for name, value in facts.items if isinstance(name, str)]


def _refuse_unknown(names: Sequence[Global], plan: Plan) -> None:
    """A payload must not travel into a file that people trust because ckptool wrote it."""
    found = judged(names)
    path = None if plan.frame is None else plan.inputs[plan.frame].path
    dangerous = [name for name, risk in found.items() if risk == "dangerous"]
    if dangerous:
        raise UnsafeError(
            f"an object beside the weights would call {_some(dangerous)} when the file is loaded, so it is not written",
            hint="--only-weights leaves it behind",
            path=path,
        )
    if found and not plan.keep_unknown:
        raise UnsafeError(
            f"the objects beside the weights need {len(found)} unknown class{'es' if len(found) > 1 else ''}: "
            f"{_some(list(found))}",
            hint="--only-weights leaves it behind; --keep-unknown keeps it unchanged (ckptool never runs it)",
            path=path,
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _survey(root: object) -> tuple[list[Global], list[Persistent]]:
    """Every name and every reference below an object, the contents of references included, in one walk."""
    names: list[Global] = []
    references: list[Persistent] = []
    for node in each_below([root], in_references=True):
        if type(node) is Global:
            names.append(node)
        elif type(node) is Persistent:
            references.append(node)
    return names, references
