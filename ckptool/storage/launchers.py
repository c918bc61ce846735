"""Which process of how many this is, as torchrun, Slurm, Open MPI and PMI tell it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_NAMES = (
    ("RANK", "WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
)
_RUN = (
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_RESTART_COUNT",
    "MASTER_ADDR",
    "MASTER_PORT",
    "SLURM_JOB_ID",
    "SLURM_STEP_ID",
    "SLURM_RESTART_COUNT",
    "PMIX_NAMESPACE",
)


@dataclass(frozen=True, slots=True)
class Share:
    """One of several processes that write one output together.

    Attributes:
        number: which, counted from 0.
        count: how many there are.
        run: what tells this start of theirs from others; "" where nothing does.
        is_launched: a launcher started all of them, and ends the others if one fails.
    """

    number: int
    count: int
    run: str = ""
    is_launched: bool = False

    @property
    def leads(self) -> bool:
        """True for the process that says what all of them did."""
        return self.number == 0 or not self.is_launched


def launched(variables: Mapping[str, str]) -> Share | None:
    """What a launcher says in the environment; None without one.

    Example:
        >>> launched({"RANK": "1", "WORLD_SIZE": "4"})
        Share(number=1, count=4, run='', is_launched=True)
        >>> launched({"RANK": "x", "WORLD_SIZE": "4"}) is None
        True
    """
    for rank, size in _NAMES:
        number, count = variables.get(rank, ""), variables.get(size, "")
        if number.isdecimal() and count.isdecimal() and int(number) < int(count):
            run = " ".join(variables[name] for name in _RUN if name in variables)
            return Share(int(number), int(count), run, is_launched=True)
    return None
