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

from ckptool.core.version import VERSION

TYPE_CHECKING = False  # importing typing would take longer than all the rest of this module
if TYPE_CHECKING:
    from ckptool.api.loading import Report as Report
    from ckptool.api.looking import check as check
    from ckptool.api.looking import compare as compare
    from ckptool.api.looking import dequantized as dequantized
    from ckptool.api.looking import match as match
    from ckptool.api.looking import open as open
    from ckptool.api.looking import stats as stats
    from ckptool.api.matching import Automatic as Automatic
    from ckptool.api.models import load_into as load_into
    from ckptool.api.models import plan_transplant as plan_transplant
    from ckptool.api.models import probe as probe
    from ckptool.api.plan import Plan as Plan
    from ckptool.api.planning import extract as extract
    from ckptool.api.planning import extract_lora as extract_lora
    from ckptool.api.planning import plan_filter as plan_filter
    from ckptool.api.planning import plan_merge as plan_merge
    from ckptool.api.planning import plan_patch as plan_patch
    from ckptool.api.planning import plan_remap as plan_remap
    from ckptool.commands.checks.finding import Finding as Finding
    from ckptool.commands.diff.result import Change as Change
    from ckptool.commands.diff.result import Diff as Diff
    from ckptool.commands.diff.result import Status as Status
    from ckptool.commands.transplant.result import Transplant as Transplant
    from ckptool.core.checkpoint import Checkpoint as Checkpoint
    from ckptool.core.errors import CkptError as CkptError
    from ckptool.core.errors import PartlyLoadedError as PartlyLoadedError
    from ckptool.core.plan import Step as Step
    from ckptool.core.spec import TensorSpec as TensorSpec
    from ckptool.core.tensor import Tensor as Tensor
    from ckptool.engine.reading import Reader as Reader
    from ckptool.models.probing.report import ProbeReport as ProbeReport
    from ckptool.recipes.recipe import Recipe as Recipe
    from ckptool.values.delta import Tolerance as Tolerance

__version__ = VERSION

# where the names live; each is imported when it is first asked for (PEP 562)
_HOMES = {
    "Automatic": "api.matching",
    "Change": "commands.diff.result",
    "Checkpoint": "core.checkpoint",
    "CkptError": "core.errors",
    "Diff": "commands.diff.result",
    "Finding": "commands.checks.finding",
    "PartlyLoadedError": "core.errors",
    "Plan": "api.plan",
    "ProbeReport": "models.probing.report",
    "Reader": "engine.reading",
    "Recipe": "recipes.recipe",
    "Report": "api.loading",
    "Status": "commands.diff.result",
    "Step": "core.plan",
    "Tensor": "core.tensor",
    "TensorSpec": "core.spec",
    "Tolerance": "values.delta",
    "Transplant": "commands.transplant.result",
    **dict.fromkeys(("check", "compare", "dequantized", "match", "open", "stats"), "api.looking"),
    **dict.fromkeys(("load_into", "plan_transplant", "probe"), "api.models"),
    **dict.fromkeys(
        ("extract", "extract_lora", "plan_filter", "plan_merge", "plan_patch", "plan_remap"), "api.planning"
    ),
}

_COMMANDS = {"diff": "compare", "inspect": "open", "load": "open", "transfer": "plan_transplant"}
"""What people look for first, and the function that does it; `filter` and others have a `plan_` before them."""

__all__ = [
    "Automatic",
    "Change",
    "Checkpoint",
    "CkptError",
    "Diff",
    "Finding",
    "PartlyLoadedError",
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
    "check",
    "compare",
    "dequantized",
    "extract",
    "extract_lora",
    "load_into",
    "match",
    "open",
    "plan_filter",
    "plan_merge",
    "plan_patch",
    "plan_remap",
    "plan_transplant",
    "probe",
    "stats",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        meant = _COMMANDS.get(name) or (f"plan_{name}" if f"plan_{name}" in __all__ else "")
        hint = f"; use ckptool.{meant}" if meant else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
