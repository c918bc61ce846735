"""``fit channels`` and ``fit patch``: the first convolution for other input channels, or patches of another size.

Each does what its reference does: timm's `adapt_input_conv` (models/_manipulate.py) and `resample_patch_embed`
(layers/patch_embed.py, after FlexiViT, arXiv 2212.08013), as of timm 1.0.31.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ckptool.fits.base import Fitting, Request, float32, resized, rounded

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Channels(Fitting):
    """Weights [out, in, ...] for other input channels.

    For one channel they are summed, so that a grey image gives what the three equal channels of it gave. For n they
    are repeated, cut off and scaled by base / n, so that n equal channels do.

    Attributes:
        base: channels of the image. More input channels than that are blocks of it (space to depth), each summed.
    """

    base: int

    def compute(self, args: Sequence[Array]) -> Array:
        import numpy as np

        array = args[0]
        weights = float32(array)
        out, channels, *rest = weights.shape
        wanted = self.target.shape[1]
        if wanted * self.base == channels:  # one channel for each block
            blocks = weights.reshape(out, wanted, self.base, *rest)
            made = blocks[:, :, 0].copy()
            for channel in range(1, self.base):
                made += blocks[:, :, channel]
        else:
            made = weights[:, [channel % channels for channel in range(wanted)]]
            made *= np.float32(self.base / wanted)
        return rounded(made, array)


def channels(request: Request, *, base: int | None = None) -> Channels:
    """``fit channels``: convolution weights that differ in input channels only.

    `base` says how many channels the image had, where the weights have more because of space-to-depth: 12 = 4 x 3.
    """
    request.require_numbers()
    have, want = request.source.shape, request.target.shape
    same = have[:1] + have[2:] == want[:1] + want[2:]
    if not 3 <= len(have) <= 5 or len(have) != len(want) or not same or 0 in (have[1], want[1]):
        raise request.misfit("conv weights that differ in their input channels (axis 1) only")
    base = base or have[1]
    if base != have[1] and want[1] * base != have[1]:
        raise request.misfit(
            f"one input channel for each {base} of the source's, or weights of {base} channels", "leave base out"
        )
    return Channels(request.text, have, request.target, base)


@dataclass(frozen=True, slots=True)
class Patch(Fitting):
    """Weights [out, in, h, w] of a patch embedding for patches of another size.

    They are multiplied by the pseudo-inverse of the resizing, so that a resized patch gives what the patch gave.
    """

    mode: str = "bicubic"
    antialias: bool = True

    def compute(self, args: Sequence[Array]) -> Array:
        import numpy as np
        import torch

        array = args[0]
        out, channels, *old = array.shape
        if tuple(old) == self.target.shape[2:]:
            return array
        height, width = self.target.shape[2:]
        basis = np.eye(old[0] * old[1], dtype=np.float32).reshape(-1, 1, *old)
        images = resized(basis, (height, width), self.mode, antialias=self.antialias, align_corners=False)
        with torch.no_grad():
            resize = torch.from_numpy(images).squeeze(1).permute(1, 2, 0).reshape(height * width, -1)
            weights = torch.from_numpy(float32(array)).reshape(out, channels, -1)
            made = weights @ torch.linalg.pinv(resize)
        return rounded(made.numpy().reshape(self.target.shape), array)


def patch(request: Request, *, mode: str = "bicubic", antialias: bool = True) -> Patch:
    """``fit patch``: weights [out, in, h, w] that differ in the size of the patch only."""
    request.require_numbers()
    request.require_torch()
    have, want = request.source.shape, request.target.shape
    if len(have) != 4 or len(want) != 4 or have[:2] != want[:2] or 0 in have + want:
        raise request.misfit("conv weights [out, in, h, w] that differ in h and w only")
    return Patch(request.text, have, request.target, mode, antialias)
