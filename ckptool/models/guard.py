"""Running a model's code without letting it change what is not its own: stdout, seeds, defaults, warnings."""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ckptool.storage.streams import stdout_to_stderr


@contextmanager
def guarded(places: Sequence[str] = (), seed: int = 0) -> Iterator[None]:
    """A block in which code of a model runs.

    What it prints goes to stderr, for ckptool's stdout may be JSON. Its random numbers start from `seed`, so a run can
    be repeated. The caller's random state, default dtype, import path and warning filters are as before afterwards.

    Args:
        places: folders that its imports are looked up in first.
        seed: for torch, numpy and random.
    """
    import torch

    dtype, path = torch.get_default_dtype(), list(sys.path)
    sys.path[:0] = places
    try:
        with stdout_to_stderr(), warnings.catch_warnings(), _seeded(seed):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_default_dtype(dtype)
        sys.path[:] = path


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    import torch

    state = random.getstate()
    numpy = sys.modules.get("numpy")
    numpy_state = numpy.random.get_state() if numpy else None
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            random.seed(seed)
            if numpy:
                numpy.random.seed(seed % 2**32)
            yield
    finally:
        random.setstate(state)
        if numpy:
            numpy.random.set_state(numpy_state)
