"""What a probe shows to the models: an image, tokens, numbers; structured and seeded, so that every mix-up shows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Kind = Literal["image", "ids", "numbers", "mask"]

_WAVES = 6


def content(kind: Kind, shape: tuple[int, ...], high: int, seed: int) -> torch.Tensor:
    """One input.

    Args:
        kind: "image" is smooth, each channel with a mean of its own, and equal to none of its mirror images; "ids" are
            whole numbers below `high`, the first few of a vocabulary left out, where its special tokens mostly are;
            "numbers" are smooth along all axes but the second, which is that of channels; "mask" is all ones.
        shape: of the tensor.
        high: size of the vocabulary.
        seed: equal seeds give equal inputs.

    Example:
        >>> image = content("image", (1, 3, 8, 8), 0, seed=0)
        >>> bool((image == content("image", (1, 3, 8, 8), 0, seed=0)).all()), bool((image == image.flip(3)).any())
        (True, False)
        >>> content("ids", (1, 4), 100, seed=0).tolist()
        [[48, 19, 57, 4]]
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    if kind == "mask":
        return torch.ones(shape, dtype=torch.int64)
    if kind == "ids":
        return torch.randint(4 if high > 16 else 0, max(1, high), shape, generator=generator)
    return _waves(shape, generator)


def _waves(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """A few waves of other directions for each channel, a mean for each, and a little noise."""
    import torch

    if len(shape) < 3:
        return torch.randn(shape, generator=generator)
    axes = [torch.linspace(0, 1, size) for size in shape[2:]]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    pages = torch.empty(shape[0] * shape[1], *shape[2:])
    for page in pages:
        speed = torch.randn(_WAVES, len(axes), generator=generator) * 3
        phase = torch.rand(_WAVES, generator=generator) * 2 * math.pi
        waves = torch.tensordot(speed, grid, dims=1) * math.pi + phase.reshape(-1, *[1] * len(axes))
        page.copy_(waves.sin().sum(0) / math.sqrt(_WAVES / 2) + torch.randn(1, generator=generator))
    return (pages + torch.randn(pages.shape, generator=generator) * 0.1).reshape(shape)
