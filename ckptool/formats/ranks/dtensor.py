"""DTensors: which box of the whole tensor a rank's local tensor is, from the mesh of ranks and the placements.

Source: torch.distributed.tensor of torch 2.0 to 2.13; the classes have moved and changed names, their fields less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from ckptool.core.tensor import Tensor
from ckptool.formats.pickle.objects import Call, Dict
from ckptool.formats.ranks.files import RankFile, class_of
from ckptool.formats.ranks.held import integers_of


@dataclass(frozen=True, slots=True)
class Mesh:
    """A mesh of ranks as one rank sees it.

    Attributes:
        shape: the size of each axis.
        names: of the axes; their numbers where they have none.
        coordinate: where the rank is.
        rank: its number; None if the file does not state it.
        ranks: the numbers of all ranks of the whole mesh.
        own: those of the mesh itself, which may be a part of the whole one.
    """

    shape: tuple[int, ...]
    names: tuple[str, ...]
    coordinate: tuple[int, ...]
    rank: int | None
    ranks: tuple[int, ...]
    own: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    """How an axis of the mesh divides a tensor.

    Attributes:
        kind: "Shard", "Replicate", "Partial" or "_StridedShard".
        dim: the axis of the tensor, for the two kinds that shard.
        factor: into how many parts the axis was cut before, for "_StridedShard".
        text: it in words.
    """

    kind: str
    dim: int = 0
    factor: int = 1
    text: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """One rank's part of a tensor.

    Attributes:
        rank: the rank that holds it.
        dtype: of the tensor.
        whole: the shape of the tensor.
        at: where the part begins in it.
        shape: of the part.
        local: the part's elements; None for an empty part.
        placements: how the tensor is laid out.
        owners: the ranks that hold the other parts, where the file states them: by where a part begins.
    """

    rank: int
    dtype: str
    whole: tuple[int, ...]
    at: tuple[int, ...]
    shape: tuple[int, ...]
    local: Tensor | None
    placements: str = ""
    owners: Mapping[tuple[int, ...], int] | None = None


def read_dtensor(file: RankFile, node: Call, key: str, meshes: dict[int, Mesh | None]) -> tuple[Part, Mesh]:
    """One rank's part of a DTensor.

    Args:
        file: the rank's file.
        node: the DTensor.
        key: its key.
        meshes: the meshes that were read before, by the id of their objects: nearly all tensors share one.

    Raises:
        UnreadableError: its placements are not those of a whole tensor, or its local tensor is not what they say.
    """
    dtype, whole, state = wrapper(file, node, key)
    attributes = _attributes(file, state)
    spec = file.state(attributes.get("_spec"))
    node_of_mesh = spec.get("mesh")
    if id(node_of_mesh) not in meshes:
        meshes[id(node_of_mesh)] = _mesh(file, node_of_mesh, key)
    mesh = meshes[id(node_of_mesh)]
    placements = [_placement(file, each, key) for each in sequence_of(spec.get("placements"))]
    local = file.tensor(attributes.get("_local_tensor"), key)
    if local is None or mesh is None or len(placements) != len(mesh.shape):
        raise file.bad(f"holds a DTensor for {key} of a form that torch does not write", key)
    partial = next((each for each in placements if each.kind == "Partial"), None)
    if partial is not None:
        raise file.bad(
            f"holds {key} as {partial.text}: every rank has a summand of its values",
            key,
            hint="redistribute it before saving: tensor.redistribute(placements=[Replicate()])",
        )
    order = _order(file, spec.get("shard_order"), placements, len(whole))
    at, shape = box_of(whole, mesh, placements, order)
    for axis, dims in enumerate(order):
        _check_factors(file, key, axis, dims, placements, mesh)
    if local.shape != shape or local.dtype != dtype:
        raise file.bad(
            f"holds {list(local.shape)} of {key} where rank {mesh.rank} of the mesh has {list(shape)}",
            key,
            hint="the file is of another save, or of a torch that cuts tensors otherwise",
        )
    text = f"[{', '.join(each.text for each in placements)}]"
    return Part(mesh.rank if mesh.rank is not None else -1, dtype, whole, at, shape, local, text), mesh


def box_of(
    whole: Sequence[int], mesh: Mesh, placements: Sequence[Placement], order: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(where it begins, its shape): a rank's box of a tensor, cut as torch.chunk cuts.

    Example:
        >>> mesh = Mesh((2, 2), ("dp", "tp"), (1, 0), 2, (0, 1, 2, 3))
        >>> rows = [Placement("_StridedShard", 0, 2), Placement("Shard", 0)]
        >>> box_of((8, 3), mesh, rows, [[1, 0], []])  # cut by tp first
        ((2, 0), (2, 3))
    """
    at, shape = [0] * len(whole), list(whole)
    for axis, dims in enumerate(order):
        for dim in dims:
            size = -(-shape[axis] // mesh.shape[dim])
            start = min(size * mesh.coordinate[dim], shape[axis])
            at[axis] += start
            shape[axis] = min(size, shape[axis] - start)
    return tuple(at), tuple(shape)


def wrapper(file: RankFile, node: Call, key: str) -> tuple[str, tuple[int, ...], object]:
    """(dtype, whole shape, state) of a subclass of Tensor that torch's _rebuild_wrapper_subclass makes."""
    args = node.args
    inner = args[2] if type(args) is tuple and len(args) > 3 else None
    if type(args) is tuple and type(inner) is tuple and len(inner) > 2:
        dtype = file.dtype(inner[1])
        if dtype is not None:
            return dtype, file.shape(inner[2], key), args[3]
    raise file.bad(f"holds {key} in a form that torch does not write", key)


def _attributes(file: RankFile, state: object) -> dict[str, object]:
    """The __dict__ and the slots of a DTensor."""
    found: dict[str, object] = {}
    for part in state if type(state) is tuple else (state,):
        found.update(file.entries(part) if type(part) is Dict else {})
    return found


def _mesh(file: RankFile, node: object, key: str) -> Mesh | None:
    """A DeviceMesh, of torch 2.9 and older or newer."""
    state = file.state(node)
    names = state.get("_mesh_dim_names", state.get("mesh_dim_names"))
    root = file.state(state.get("_root_mesh")) or file.state(state.get("_parent_mesh")) or state
    coordinate = _ints(state.get("_coordinate_on_dim"))
    rank = state.get("_rank")
    layout = file.state(state.get("_layout"))
    own: tuple[int, ...] = ()
    if layout:
        shape = tuple(prod(_ints(file.state(axis).get("shape"))) for axis in sequence_of(layout.get("axes")))
        everyone = _ints(root.get("_flatten_rank_map")) or _ints(state.get("_flatten_rank_map"))
        if type(rank) is int and rank in everyone and len(coordinate) == len(shape):
            own = _own_ranks(file, layout, coordinate, everyone, everyone.index(rank))
    else:
        tensor = file.tensor(state.get("mesh"), key)
        if tensor is None:
            return None
        shape, ranks = tensor.shape, _ints(state.get("_flatten_mesh_list")) or tuple(integers_of(tensor))
        own = ranks
        whole = file.tensor(root.get("mesh"), key)
        everyone = tuple(integers_of(whole)) if whole is not None else ranks
        if type(rank) is not int and len(coordinate) == len(shape) and len(ranks) == prod(shape):
            place = 0
            for size, index in zip(shape, coordinate, strict=True):
                place = place * size + index
            rank = ranks[place] if place < len(ranks) else None
    if len(coordinate) != len(shape) or any(not 0 <= i < size for i, size in zip(coordinate, shape, strict=True)):
        return None
    given = [name for name in sequence_of(names) if type(name) is str]
    axes = tuple(given) if len(given) == len(shape) else tuple(map(str, range(len(shape))))
    everyone = everyone or tuple(range(prod(shape)))
    return Mesh(shape, axes, coordinate, rank if type(rank) is int else None, everyone, own or everyone)


def _own_ranks(
    file: RankFile, layout: Mapping[str, object], coordinate: Sequence[int], everyone: Sequence[int], place: int
) -> tuple[int, ...]:
    """The ranks of a mesh whose axes step through the ranks of a larger one; a rank's place in that one is given.

    Returns:
        Nothing if the steps lead elsewhere.
    """
    places = [place]
    for axis, index in zip(sequence_of(layout.get("axes")), coordinate, strict=True):
        state = file.state(axis)
        steps = [0]
        for size, stride in zip(_ints(state.get("shape")), _ints(state.get("stride")), strict=False):
            if len(steps) * size > len(everyone):
                return ()
            steps = [step + number * stride for step in steps for number in range(size)]
        if index >= len(steps) or len(places) * len(steps) > len(everyone):
            return ()
        places = [each - steps[index] + step for each in places for step in steps]
    return tuple(everyone[each] for each in places) if all(0 <= each < len(everyone) for each in places) else ()


def _placement(file: RankFile, node: object, key: str) -> Placement:
    name, state = class_of(node).lstrip("_"), file.state(node)
    match name:
        case "Replicate":
            return Placement("Replicate", text="Replicate")
        case "Shard" | "StridedShard":
            dim, factor = state.get("dim"), state.get("split_factor", 1)
            args = node.args if type(node) is Call and type(node.args) is tuple else ()
            kwargs = file.entries(node.kwargs) if type(node) is Call else {}
            dim = dim if dim is not None else kwargs.get("dim", args[0] if args else None)
            factor = kwargs.get("sf", kwargs.get("split_factor", factor))
            if type(dim) is int and dim >= 0 and type(factor) is int and factor > 0:
                kind = "Shard" if name == "Shard" else "_StridedShard"
                return Placement(kind, dim, factor, f"{kind}({dim})")
        case "Partial" | "MaskPartial":
            operation = state.get("reduce_op", "sum")
            return Placement("Partial", text=f"Partial({operation if type(operation) is str else 'sum'})")
    raise file.bad(f"lays {key} out in a way that ckptool does not know: {class_of(node) or 'no placement'}", key)


def _order(file: RankFile, stated: object, placements: Sequence[Placement], axes: int) -> list[list[int]]:
    """The axes of the mesh that cut each axis of the tensor, in the order in which they cut it."""
    order: list[list[int]] = []
    for axis in range(axes):
        mine = [dim for dim, each in enumerate(placements) if each.kind.endswith("Shard") and each.dim == axis]
        plain = [dim for dim in mine if placements[dim].kind == "Shard"]
        order.append(plain + [dim for dim in reversed(mine) if dim not in plain])
    for entry in sequence_of(stated):
        fields = entry.args if type(entry) is Call and type(entry.args) is tuple else ()
        if len(fields) == 2 and type(fields[0]) is int and 0 <= fields[0] < axes:
            dims = list(_ints(fields[1]))
            if sorted(dims) == sorted(order[fields[0]]):
                order[fields[0]] = dims
    return order


def _check_factors(
    file: RankFile, key: str, axis: int, dims: Sequence[int], placements: Sequence[Placement], mesh: Mesh
) -> None:
    """A _StridedShard states into how many parts its axis was cut before."""
    done = 1
    for dim in dims:
        each = placements[dim]
        if each.kind == "_StridedShard" and each.factor != done:
            raise file.bad(
                f"lays {key} out with a split factor of {each.factor} on axis {axis}, which was cut {done:,} times",
                key,
            )
        done *= mesh.shape[dim]


def sequence_of(node: object) -> Sequence[object]:
    """What is in a list or a tuple; nothing is in anything else."""
    return node if type(node) is tuple or type(node) is list else ()


def _ints(node: object) -> tuple[int, ...]:
    return tuple(each for each in sequence_of(node) if type(each) is int)
