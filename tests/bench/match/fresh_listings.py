"""Names and shapes of models whose packages CI has not: read from a file that this script wrote with the real code.

python -m tests.bench.match.fresh_listings   # writes it again; each model needs its package
"""

from __future__ import annotations

import functools
import lzma
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.match.pairs import prepare

PATH = Path(__file__).with_suffix(".txt.xz")


@functools.cache
def _read() -> dict[str, list[tuple[str, tuple[int, ...]]]]:
    found: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    rows: list[tuple[str, tuple[int, ...]]] = []
    for line in lzma.decompress(PATH.read_bytes()).decode().splitlines():
        key, *sizes = line.split(" ")
        if key == "#":
            rows = found.setdefault(sizes[0], [])
        else:
            rows.append((key, tuple(int(size) for size in sizes)))
    return found


def listing(name: str) -> dict[str, Any]:
    """The state dict of a model, in the order of its own code."""
    import torch

    return {key: torch.empty(shape) for key, shape in _read()[name]}


def _pytorchcv(name: str) -> Any:
    from pytorchcv.model_provider import get_model

    return get_model(name, pretrained=False)


def _facenet() -> Any:
    from facenet_pytorch import InceptionResnetV1

    return InceptionResnetV1(classify=True, num_classes=8631)


def _dit() -> Any:
    from diffusers import DiTTransformer2DModel

    return DiTTransformer2DModel(num_attention_heads=6, attention_head_dim=64, in_channels=4, out_channels=8,
                                 num_layers=12, sample_size=32, patch_size=2, num_embeds_ada_norm=1000)  # fmt: skip


def _flux() -> Any:
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(num_layers=3, num_single_layers=5, num_attention_heads=4, guidance_embeds=True,
                                  axes_dims_rope=(16, 56, 56))  # fmt: skip


def _taesd() -> Any:
    from diffusers import AutoencoderTiny

    return AutoencoderTiny()


def _ddpm() -> Any:
    from diffusers import UNet2DModel

    return UNet2DModel(sample_size=32, in_channels=3, out_channels=3, layers_per_block=2,
                       block_out_channels=(128, 256, 256, 256), attention_head_dim=None,
                       down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
                       up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"))  # fmt: skip


def _smp(name: str) -> Any:
    import segmentation_models_pytorch as smp

    return getattr(smp, name)("resnet34", encoder_weights=None)


def _nnunet() -> Any:
    import torch
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    return PlainConvUNet(1, 5, (32, 64, 128, 256, 320), torch.nn.Conv3d, 3, (1, 2, 2, 2, 2), 2, 3, 2, conv_bias=True,
                         norm_op=torch.nn.InstanceNorm3d, norm_op_kwargs={"affine": True},
                         nonlin=torch.nn.LeakyReLU, deep_supervision=True)  # fmt: skip


def _slowfast() -> Any:
    from pytorchvideo.models.hub import slowfast_r50

    return slowfast_r50(pretrained=False)


def _monai(name: str) -> Any:
    from monai.networks import nets

    if name == "VNet":
        return nets.VNet()
    return nets.SwinUNETR(in_channels=1, out_channels=14, feature_size=48)


def _yolov8() -> Any:
    from ultralytics.nn.tasks import DetectionModel

    return DetectionModel("yolov8n.yaml", verbose=False)


MODELS: dict[str, Callable[[], Any]] = {
    "pytorchcv-resnet50": lambda: _pytorchcv("resnet50"),
    "pytorchcv-densenet121": lambda: _pytorchcv("densenet121"),
    "pytorchcv-mobilenetv2": lambda: _pytorchcv("mobilenetv2_w1"),
    "pytorchcv-shufflenetv2": lambda: _pytorchcv("shufflenetv2_w1"),
    "pytorchcv-seresnext50": lambda: _pytorchcv("seresnext50_32x4d"),
    "pytorchcv-inceptionv3": lambda: _pytorchcv("inceptionv3"),
    "facenet": _facenet,
    "diffusers-dit": _dit,
    "diffusers-flux": _flux,
    "diffusers-taesd": _taesd,
    "diffusers-ddpm": _ddpm,
    "smp-unet": lambda: _smp("Unet"),
    "smp-fpn": lambda: _smp("FPN"),
    "smp-linknet": lambda: _smp("Linknet"),
    "nnunet-v2": _nnunet,
    "slowfast": _slowfast,
    "monai-vnet": lambda: _monai("VNet"),
    "monai-swinunetr": lambda: _monai("SwinUNETR"),
    "ultralytics-yolov8n": _yolov8,
}


REAL = {"monai-swinunetr", "ultralytics-yolov8n"}  # their code asks tensors for numbers


def main() -> None:
    """Writes the file."""
    import torch

    prepare()
    lines = []
    for name, build in MODELS.items():
        with torch.device("cpu" if name in REAL else "meta"):
            try:
                model = build()
            except Exception as error:  # a package is missing: say it and go on
                print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
                continue
        lines.append(f"# {name}")
        lines += [" ".join([key, *map(str, tensor.shape)]) for key, tensor in model.state_dict().items()]
    PATH.write_bytes(lzma.compress("\n".join(lines).encode()))


if __name__ == "__main__":
    main()
