"""The target of ``--into``: a model of torchvision, timm or transformers, of the user's own code, or a checkpoint.

A model is built to learn its keys, shapes and dtypes: on the meta device where its init allows, so no memory is filled
and nothing is downloaded. torch is imported inside functions: asking for a target is what costs.
"""

from __future__ import annotations

from ckptool.models.arguments import parse_model_args
from ckptool.models.initial import initial_state
from ckptool.models.opening import open_target, target_from
from ckptool.models.strict import Verdict, strict_verdict
from ckptool.models.target import Target, target_of
from ckptool.models.vision import import_torchvision

__all__ = [
    "Target",
    "Verdict",
    "import_torchvision",
    "initial_state",
    "open_target",
    "parse_model_args",
    "strict_verdict",
    "target_from",
    "target_of",
]
