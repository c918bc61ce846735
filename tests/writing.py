"""Writes a plan as every command and the API do: completed for the container of its output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ckptool.api.plan import Plan as ApiPlan
from ckptool.core.plan import Plan
from ckptool.engine.apply import Written


def apply(plan: Plan, out: Path | str, **options: Any) -> Written:
    """What `ckptool.Plan.apply` does."""
    return ApiPlan.of(plan).apply(out, **options)
