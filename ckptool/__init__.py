"""ckptool: surgery on model checkpoints, from Python.

Example:
    >>> import ckptool
    >>> checkpoint = ckptool.open("fixtures/resnet18.pth")  # headers only: a mapping from key to Tensor
    >>> checkpoint["conv1.weight"].spec.short
    'f32[2,3,7,7]'
    >>> ckptool.compare(checkpoint, "fixtures/shards").is_same
    True
    >>> plan = ckptool.plan_filter(checkpoint, [("drop", "fc.*")])  # headers only; plan.apply("body.pth") writes
    >>> len(plan.steps), [dropped.source.key for dropped in plan.dropped]
    (120, ['fc.weight', 'fc.bias'])

Nothing of a file is ever run, and importing this package imports neither numpy nor torch. What is wrong with a file is
raised as a `CkptError`, with the message that the command line prints and a `hint`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import ckptool.compare  # noqa: F401  (now: a later import would put the folder in the function's place)
from ckptool.api import compare, load_into, match, open, plan_filter, plan_merge, plan_remap, plan_transplant, probe

if TYPE_CHECKING:
    from ckptool.checkpoint import Checkpoint as Checkpoint
    from ckptool.checkpoint import Tensor as Tensor
    from ckptool.compare.result import Change as Change
    from ckptool.compare.result import Diff as Diff
    from ckptool.compare.result import Status as Status
    from ckptool.compare.result import Tolerance as Tolerance
    from ckptool.errors import CkptError as CkptError
    from ckptool.loading import Report as Report
    from ckptool.plan import Plan as Plan
    from ckptool.plan import Step as Step
    from ckptool.probing.report import ProbeReport as ProbeReport
    from ckptool.reading import Reader as Reader
    from ckptool.recipes.recipe import Recipe as Recipe
    from ckptool.spec import TensorSpec as TensorSpec
    from ckptool.surgery.automatic import Automatic as Automatic
    from ckptool.surgery.transplant import Transplant as Transplant

__version__ = "0.1.0"

# where the classes live; each is imported when first asked for (PEP 562)
_HOMES = {
    "Automatic": "surgery.automatic",
    "Change": "compare.result",
    "Checkpoint": "checkpoint",
    "CkptError": "errors",
    "Diff": "compare.result",
    "Plan": "plan",
    "ProbeReport": "probing.report",
    "Reader": "reading",
    "Recipe": "recipes.recipe",
    "Report": "loading",
    "Status": "compare.result",
    "Step": "plan",
    "Tensor": "checkpoint",
    "TensorSpec": "spec",
    "Tolerance": "compare.result",
    "Transplant": "surgery.transplant",
}

__all__ = [
    "Automatic",
    "Change",
    "Checkpoint",
    "CkptError",
    "Diff",
    "Plan",
    "ProbeReport",
    "Reader",
    "Recipe",
    "Report",
    "Status",
    "Step",
    "Tensor",
    "TensorSpec",
    "Tolerance",
    "Transplant",
    "compare",
    "load_into",
    "match",
    "open",
    "plan_filter",
    "plan_merge",
    "plan_remap",
    "plan_transplant",
    "probe",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
