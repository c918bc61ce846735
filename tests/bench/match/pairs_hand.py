"""Pairs written by hand: traps that real code sets, in small models of torch alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.bench.match.pairs import (
    State,
    Two,
    both_sorted,
    image,
    pair,
    renamed,
    sorted_keys,
    variant,
)


def rows(width: int = 32, length: int = 5) -> Any:
    """Two rows of vectors, for proofs."""
    import torch

    return torch.randn(2, length, width, generator=torch.Generator().manual_seed(1))


# ---------------------------------------------------------------------------------------------- transformers


def encoder(width: int = 32, layers: int = 4) -> Any:
    import torch

    layer = torch.nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True, dropout=0.0)
    return torch.nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def separate(width: int = 32, layers: int = 4, adapter: bool = False) -> Any:
    """The same encoder with a Linear for each of q, k and v; if wished with an adapter that starts as the identity."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.k_proj, self.v_proj, self.q_proj, self.out = (nn.Linear(width, width) for _ in range(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            parts = (self.q_proj(x), self.k_proj(x), self.v_proj(x))
            q, k, v = (h.unflatten(-1, (4, -1)).transpose(1, 2) for h in parts)
            return self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = Attention()
            self.attention_norm = nn.LayerNorm(width)
            if adapter:
                self.adapter = nn.Sequential(nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, width))
                nn.init.zeros_(self.adapter[2].weight)
                nn.init.zeros_(self.adapter[2].bias)
            self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
            self.output_norm = nn.LayerNorm(width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.attention_norm(x + self.attention(x))
            if adapter:
                x = x + self.adapter(x)
            return self.output_norm(x + self.fc2(functional.relu(self.fc1(x))))

    return nn.Sequential(*(Block() for _ in range(layers)))


SEPARATE = [
    "layers.{i}.self_attn.in_proj_{p*} -> {i}.attention.{x=q|k|v}_proj.{p*} | (x o) ... -> o ...",
    "layers.{i}.self_attn.out_proj.{p*} -> {i}.attention.out.{p*}",
    "layers.{i}.norm{n=1|2}.{p*} -> {i}.{n=attention_norm|output_norm}.{p*}",
    "layers.{i}.linear{n=1|2}.{p*} -> {i}.{n=fc1|fc2}.{p*}",
]


@pair("torch's TransformerEncoder to separate q k v")
def split_encoder(small: bool) -> Two:
    return Two(encoder(), separate(), SEPARATE, ask=lambda m: m(rows()))


@pair("separate q k v to torch's TransformerEncoder")
def fused_encoder(small: bool) -> Two:
    return Two(separate(), encoder(), SEPARATE, is_backwards=True, ask=lambda m: m(rows()))


@pair("an adapter inserted into every block")
def adapters(small: bool) -> Two:
    return Two(separate(), separate(adapter=True), [], missing=["*.adapter.*"], ask=lambda m: m(rows()))


@pair("an adapter inserted into every block of a renamed model")
def adapters_renamed(small: bool) -> Two:
    return Two(encoder(), separate(adapter=True), SEPARATE, missing=["*.adapter.*"], ask=lambda m: m(rows()))


variant("torch's TransformerEncoder to separate q k v, sorted", "torch's TransformerEncoder to separate q k v",
        both_sorted)  # fmt: skip


@pair("12 blocks to 14 of the same names")
def more_blocks(small: bool) -> Two:
    return Two(separate(layers=12), separate(layers=14), [], missing=["{12,13}.*"], proof="same names")


@pair("14 blocks to 12 of other names")
def fewer_blocks(small: bool) -> Two:
    import torch

    def first(model: Any) -> Any:
        x = rows()
        for layer in model.layers[:12]:
            x = layer(x)
        return x

    target = torch.nn.ModuleDict({"trunk": encoder(layers=12)})
    return Two(
        encoder(layers=14), target, ["layers. -> trunk.layers."], ask=first, ask_target=lambda m: m["trunk"](rows())
    )


# ---------------------------------------------------------------------------------------------- Sequentials


def chain(widths: list[int], *, norm: bool = True, extra: Callable[[int], list[Any]] = lambda _: []) -> Any:
    """Conv, norm, ReLU for each width; `extra` gives modules that stand before the conv of a position."""
    from torch import nn

    modules: list[Any] = []
    before = 3
    for at, width in enumerate(widths):
        modules += extra(at)
        modules.append(nn.Conv2d(before, width, 3, padding=1))
        modules += [nn.BatchNorm2d(width)] if norm else []
        modules.append(nn.ReLU())
        before = width
    return nn.Sequential(*modules)


@pair("a Sequential whose numbers moved by a Dropout in front")
def dropout_in_front(small: bool) -> Two:
    from torch import nn

    widths = [16, 16, 16, 32, 32, 32]
    return Two(
        chain(widths), chain(widths, extra=lambda at: [nn.Dropout()] if at == 0 else []),
        ["{i}.{p*} -> {i+1}.{p*}"], ask=lambda m: m(image()),
    )  # fmt: skip


@pair("a Sequential that gained a block of another width")
def inserted_block(small: bool) -> Two:
    """Everything behind the insertion has moved by three; the names of equal shapes there are traps."""
    target = chain([16, 16, 24, 32, 32, 32, 64, 64])
    source = chain([16, 16, 32, 32, 32, 64, 64])
    rules = ["{i=0|1|3|4}.{p*} -> {i}.{p*}"]
    # the conv behind the new block takes another number of channels: it has no source
    rules += ["6.{p*} -> gone.{p*}", *(f"{at}.{{p*}} -> {at + 3}.{{p*}}" for at in (7, 9, 10, 12, 13, 15, 16, 18, 19))]
    return Two(
        source, target, rules, missing=["{6,7,9}.*"], undecided=["10.*"], proof="by construction",
    )  # fmt: skip


@pair("a Sequential of equal layers with activations inserted")
def activations_inserted(small: bool) -> Two:
    """Linear layers of one shape at 0 1 2 3 and at 0 2 4 6: the names 0 and 2 are equal, and 2 is wrong."""
    from torch import nn

    source = nn.Sequential(*(nn.Linear(32, 32) for _ in range(6)))
    target = nn.Sequential(*(module for _ in range(6) for module in (nn.Linear(32, 32), nn.Identity())))
    return Two(source, target, ["{i}.{p*} -> {2*i}.{p*}"], ask=lambda m: m(rows()))


@pair("a U-Net from ModuleLists to names")
def unet(small: bool) -> Two:
    import torch
    from torch import nn

    def block(a: int, b: int) -> Any:
        return nn.Sequential(
            nn.Conv2d(a, b, 3, padding=1), nn.GroupNorm(4, b), nn.SiLU(), nn.Conv2d(b, b, 3, padding=1)
        )

    down, up = [(3, 16), (16, 32), (32, 64)], [(64, 32), (32, 16), (16, 16)]

    class Lists(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.ModuleList(block(*pair) for pair in down)
            self.up = nn.ModuleList(block(*pair) for pair in up)
            self.out = nn.Conv2d(16, 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for stage in (*self.down, *self.up):
                x = stage(x)
            return self.out(x)

    class Named(nn.Module):
        """The decoder is counted from below and stands first."""

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Conv2d(16, 1, 1)
            for at, sizes in enumerate(reversed(up), 1):
                setattr(self, f"decoder{at}", block(*sizes))
            for at, sizes in enumerate(down, 1):
                setattr(self, f"encoder{at}", block(*sizes))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for name in ("encoder1", "encoder2", "encoder3", "decoder3", "decoder2", "decoder1"):
                x = getattr(self, name)(x)
            return self.head(x)

    rules = [
        "down.{i}.{k**} -> encoder{i+1}.{k**}",
        *(f"up.{at}.{{k**}} -> decoder{3 - at}.{{k**}}" for at in range(3)),
        "out.{p*} -> head.{p*}",
    ]
    return Two(Lists(), Named(), rules, ask=lambda m: m(image()))


# ---------------------------------------------------------------------------------------------- representations


def small_net() -> Any:
    return chain([16, 16, 32, 32])


@pair("weight_norm to parametrizations")
def weight_norm(small: bool) -> Two:
    import torch
    from torch import nn

    def build(norm: Any) -> Any:
        return nn.Sequential(*(norm(nn.Conv1d(8, 8, 3, padding=1)) for _ in range(4)))

    return Two(
        build(torch.nn.utils.weight_norm), build(torch.nn.utils.parametrizations.weight_norm),
        ["weight-norm-to-parametrizations"], ask=lambda m: m(rows(7, 8)),
    )  # fmt: skip


@pair("fully connected to 1x1 and full convolutions")
def convolutional(small: bool) -> Two:
    """VGG's way to a fully convolutional head: fc6 sees 7 x 7, fc7 one pixel."""
    from torch import nn

    source = nn.ModuleDict({"fc6": nn.Linear(16 * 49, 64), "fc7": nn.Linear(64, 64), "score": nn.Linear(64, 5)})
    target = nn.ModuleDict({"fc6": nn.Conv2d(16, 64, 7), "fc7": nn.Conv2d(64, 64, 1), "score": nn.Conv2d(64, 5, 1)})
    rules = [
        "fc6.weight -> fc6.weight | o (c h w) -> o c h w",
        "{x=fc7|score}.weight -> {x}.weight | o i -> o i 1 1",
    ]

    def run(model: Any, x: Any) -> Any:
        return model["score"](model["fc7"](model["fc6"](x)))

    def crop() -> Any:
        import torch

        return torch.randn(2, 16, 7, 7, generator=torch.Generator().manual_seed(1))

    return Two(
        source, target, rules, vars={"h": 7, "w": 7}, ask=lambda m: run(m, crop().flatten(1)),
        ask_target=lambda m: run(m, crop()).flatten(1),
    )  # fmt: skip


@pair("Lightning: model. and a loss of its own")
def lightning(small: bool) -> Two:
    import torch

    def saved(state: State) -> State:
        return {f"model.{key}": tensor for key, tensor in state.items()} | {"criterion.weight": torch.ones(5)}

    return Two(small_net(), small_net(), ["model. ->", "criterion.weight -> !"], source_file=saved,
               ask=lambda m: m(image()))  # fmt: skip


@pair("a detector's backbone in TensorFlow's names")
def tensorflow(small: bool) -> Two:
    """Slim's names, kernels as HWIO, the moving averages; sorted, as TensorFlow lists them."""
    names = [
        "{i=0|3|6|9}.weight -> net/conv_{i=1|2|3|4}/weights",
        "{i=0|3|6|9}.bias -> net/conv_{i=1|2|3|4}/biases",
        "{i=1|4|7|10}.{p=weight|bias|running_mean|running_var} -> "
        "net/conv_{i=1|2|3|4}/BatchNorm/{p=gamma|beta|moving_mean|moving_variance}",
    ]  # fmt: skip

    def slim(state: State) -> State:
        found = renamed(names)({key: tensor for key, tensor in state.items() if "num_batches" not in key})
        return {
            key: found[key].permute(2, 3, 1, 0).contiguous() if key.endswith("weights") else found[key]
            for key in sorted(found)
        }

    from ckptool.recipes.recipe import parse_recipe
    from ckptool.recipes.reverse import reverse

    rules = [rule.text for rule in reverse(parse_recipe(names)).recipe.rules]
    rules = [f"{rule} | h w i o -> o i h w" if "weights" in rule else rule for rule in rules]
    return Two(small_net(), small_net(), rules, source_file=slim, missing=["num_batches_tracked"],
               ask=lambda m: m(image()))  # fmt: skip


variant("a U-Net from ModuleLists to names, source sorted", "a U-Net from ModuleLists to names", sorted_keys)
