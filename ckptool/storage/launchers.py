"""Which process of how many this is, as torchrun, Slurm, Open MPI and PMI tell it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_NAMES = (
    ("RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
)
"""The innermost first: mpirun starts its helpers by srun, and those have numbers of their own."""
_SPECIAL_STEPS = 2**32 - 16
"""From here on Slurm numbers steps that srun did not start: the batch script, the shell of salloc."""
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
        if rank == "SLURM_PROCID" and tasks_of_script(variables):
            continue
        number, count = variables.get(rank, ""), variables.get(size, "")
        if number.isdecimal() and count.isdecimal() and int(number) < int(count):
            run = " ".join(variables[name] for name in _RUN if name in variables)
            return Share(int(number), int(count), run, is_launched=True)
    return None


def tasks_of_script(variables: Mapping[str, str]) -> int:
    """How many tasks a Slurm job has whose script runs this process, once; 0 if srun started it, or there is one task.

    Slurm tells the script that it is process 0 of all tasks, though the others do not run before srun starts them.

    Example:
        >>> job = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}
        >>> tasks_of_script(job), tasks_of_script(job | {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4"})
        (4, 0)
    """
    count, step = variables.get("SLURM_NTASKS", ""), variables.get("SLURM_STEP_ID", "")
    by_srun = "SLURM_STEP_NUM_TASKS" in variables or (step.isdecimal() and int(step) < _SPECIAL_STEPS)
    if by_srun or variables.get("SLURM_PROCID") != "0" or not count.isdecimal() or int(count) < 2:
        return 0
    return int(count)
