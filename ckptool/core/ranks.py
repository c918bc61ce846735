"""How a training run laid a checkpoint out over its ranks, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Ranks:
    """The ranks that wrote a checkpoint.

    Attributes:
        count: how many ranks hold it together.
        mesh: name and size of each axis of the mesh of ranks; axes without a name are called by their number.
        placements: how the tensors are laid out, and how many tensors are laid out so.
        step: the training step that was saved, where the files state it.
        version: the framework and its version, where the files state it.

    Example:
        >>> Ranks(4, (("dp", 2), ("tp", 2))).mesh_text
        'dp 2 x tp 2'
        >>> Ranks(4, (("0", 2), ("1", 2))).mesh_text  # axes without names
        '2 x 2'
    """

    count: int
    mesh: tuple[tuple[str, int], ...] = ()
    placements: Mapping[str, int] = field(default_factory=dict)
    step: int | None = None
    version: str = ""

    @property
    def mesh_text(self) -> str:
        """The mesh in one line; empty if the files state none."""
        return " x ".join(f"{size}" if name.isdigit() else f"{name} {size}" for name, size in self.mesh)
