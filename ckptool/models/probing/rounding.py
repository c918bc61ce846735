"""Which difference of two outputs is rounding, and nothing else.

Right mappings and exchanged tensors lie far apart, if the numbers are long enough to see it. Two models in float64 that
compute the same in another order differ by 1e-16 of an output's spread, 1e-15 behind many layers; an exchange that a
residual hides nearly, for the weights are new and small, by 1e-9 and more. So the limit is small, and what
lies above it counts as rounding only if it grew from an error of what goes in, not if it is there all at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["float64", "float32"]

EXACT = 1e-13
"""All in float64."""
ROUNDED = 1e-6
"""With numbers of float32 in it: each model may compute its constants, a rotary table say, in its own way."""
GROWTH = 30
"""How much larger than before a module may make an error."""
MOST = {"float64": 1e-5, "float32": 1e-4}
"""No larger difference is rounding, wherever it comes from."""


@dataclass(frozen=True, slots=True)
class Rounding:
    """The rule.

    Attributes:
        precision: that both models run in.
        most: the largest difference that is rounding.

    Example:
        >>> rule = Rounding("float64", 1e-5)
        >>> rule.limit(False, 0.0), rule.limit(False, 0.5**30) == 30 * 0.5**30, rule.limit(True, 1e-3)
        (1e-13, True, 1e-05)
    """

    precision: Precision
    most: float

    def limit(self, is_rounded: bool, before: float) -> float:
        """The largest difference that is rounding.

        Args:
            is_rounded: numbers of float32 have a part in one of the outputs.
            before: the largest difference of what it is computed from.
        """
        floor = ROUNDED if is_rounded or self.precision == "float32" else EXACT
        return min(self.most, max(floor, GROWTH * before))
