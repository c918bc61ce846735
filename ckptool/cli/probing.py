"""``--probe``: its options, and the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from ckptool.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ckptool.commands.transplant.result import Transplant
    from ckptool.models.probing.report import ProbeReport

_PANEL = "Matching"
ProbeOption = Annotated[
    str | None,
    typer.Option(
        "--probe",
        metavar="MODEL",
        help="The model that SOURCE was saved from: one input through both models; exit 1 if they differ.",
        rich_help_panel=_PANEL,
    ),
]
ProbeArgOption = Annotated[
    list[str] | None,
    typer.Option(
        "--probe-arg", metavar="NAME=VALUE", help="An argument for that model; repeats.", rich_help_panel=_PANEL
    ),
]
ProbeInputOption = Annotated[
    str | None,
    typer.Option("--probe-input", metavar="SHAPE", help="Of the input, as in 1,3,224,224.", rich_help_panel=_PANEL),
]


@dataclass(frozen=True, slots=True)
class Probe:
    """What is to be probed.

    Attributes:
        model: what the source was saved from.
        arguments: for that model.
        shape: of the input; None for what the models take.
    """

    model: str
    arguments: Mapping[str, object]
    shape: tuple[int, ...] | None

    def run(self, done: Transplant, seed: int) -> ProbeReport:
        """One input through both models."""
        from ckptool.commands.probing import probe
        from ckptool.models import open_target

        return probe(done, open_target(self.model, self.arguments), input_shape=self.shape, seed=seed)


def asked_probe(model: str | None, arguments: list[str] | None, shape: str | None) -> Probe | None:
    """What the options say; None without --probe."""
    from ckptool.models import parse_model_args

    if model is None:
        if arguments or shape is not None:
            option = "--probe-arg" if arguments else "--probe-input"
            raise UsageError(f"{option} is for --probe", hint="--probe MODEL names what SOURCE was saved from")
        return None
    return Probe(model, parse_model_args(arguments or []), None if shape is None else _shape(shape))


def _shape(text: str) -> tuple[int, ...]:
    """(1, 3, 224, 224) of ``1,3,224,224`` or ``1x3x224x224``."""
    parts = text.replace("x", ",").split(",")
    if not all(part.strip().isdecimal() and 0 < int(part) < 1 << 20 for part in parts):
        raise UsageError(f'--probe-input "{text}" is not a shape', hint="--probe-input 1,3,224,224")
    return tuple(int(part) for part in parts)
