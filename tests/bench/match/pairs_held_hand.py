"""Held-out pairs of torch alone: U-Nets, towers that are alike, numbers written otherwise, and inserted things."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from tests.bench.match.pairs import State, Two, both_sorted, image, pair, renamed, shuffled, sorted_keys, variant
from tests.bench.match.pairs_hand import SEPARATE, encoder, rows, separate

# ---------------------------------------------------------------------------------------------- U-Nets


def double(a: int, b: int) -> list[Any]:
    from torch import nn

    return [nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(),
            nn.Conv2d(b, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]  # fmt: skip


def unet(name: Callable[[str, int, int], str], order: str) -> Any:
    """A U-Net of five levels whose modules get their names from a function of part, level and place."""
    import torch
    from torch import nn

    widths = [8, 16, 32, 64, 128]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts: dict[tuple[str, int], list[str]] = {}
            made: dict[str, Callable[[], None]] = {"down": self._down, "up": self._up, "out": self._out}
            for part in order.split():
                made[part]()

        def _add(self, path: str, module: Any) -> None:
            at: Any = self
            *parents, leaf = path.split(".")
            for parent in parents:
                if not hasattr(at, parent):
                    at.add_module(parent, nn.Module())
                at = getattr(at, parent)
            at.add_module(leaf, module)

        def _block(self, part: str, level: int, a: int, b: int) -> None:
            modules = double(a, b)
            names = [name(part, level, place) for place in range(6)]
            for path, module in zip(names, modules, strict=True):
                if list(module.parameters()):
                    self._add(path, module)
            self.parts[part, level] = names

        def _down(self) -> None:
            for level, width in enumerate(widths):
                self._block("down", level, widths[level - 1] if level else 3, width)

        def _up(self) -> None:
            for level in (3, 2, 1, 0):
                self._add(name("turn", level, 0), nn.ConvTranspose2d(widths[level + 1], widths[level], 2, 2))
                self._block("up", level, 2 * widths[level], widths[level])

        def _out(self) -> None:
            self._add(name("out", 0, 0), nn.Conv2d(8, 2, 1))

        def _run(self, part: str, level: int, x: torch.Tensor) -> torch.Tensor:
            for place in (0, 3):
                conv, norm = (self.get_submodule(name(part, level, place + n)) for n in (0, 1))
                x = norm(conv(x)).relu()
            return x

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen = []
            for level in range(5):
                x = self._run("down", level, x if level == 0 else nn.functional.max_pool2d(x, 2))
                seen.append(x)
            for level in (3, 2, 1, 0):
                x = self.get_submodule(name("turn", level, 0))(x)
                x = self._run("up", level, torch.cat([seen[level], x], 1))
            return self.get_submodule(name("out", 0, 0))(x)

    return Net()


def milesial(part: str, level: int, place: int) -> str:
    if part == "down":
        inner = f"double_conv.{place}"
        return f"inc.{inner}" if level == 0 else f"down{level}.maxpool_conv.1.{inner}"
    if part == "up":
        return f"up{4 - level}.conv.double_conv.{place}"
    return "outc.conv" if part == "out" else f"up{4 - level}.up"


def buda(part: str, level: int, place: int) -> str:
    kind = "conv" if place % 3 == 0 else "norm"
    number = place // 3 + 1
    if part == "down":
        stem = "bottleneck" if level == 4 else f"encoder{level + 1}"
        inner = "bottleneck" if level == 4 else f"enc{level + 1}"
        return f"{stem}.{inner}{kind}{number}"
    if part == "up":
        return f"decoder{level + 1}.dec{level + 1}{kind}{number}"
    return "conv" if part == "out" else f"upconv{level + 1}"


def monai(part: str, level: int, place: int) -> str:
    kind = "conv" if place % 3 == 0 else "adn.N"
    inner = f"conv_{place // 3}.{kind}"
    if part == "down":
        return f"conv_0.{inner}" if level == 0 else f"down_{level}.convs.{inner}"
    if part == "up":
        return f"upcat_{level + 1}.convs.{inner}"
    return "final_conv" if part == "out" else f"upcat_{level + 1}.upsample.deconv"


def unet_rules(a: Callable[[str, int, int], str], b: Callable[[str, int, int], str]) -> list[str]:
    """Every module by itself."""
    places = [("down", level, place) for level in range(5) for place in (0, 1, 3, 4)]
    places += [("up", level, place) for level in range(4) for place in (0, 1, 3, 4)]
    places += [("turn", level, 0) for level in range(4)] + [("out", 0, 0)]
    return [f"{a(*place)}.{{p*}} -> {b(*place)}.{{p*}}" for place in places]


@pair("milesial's U-Net to Buda's: up1 is decoder4")
def unet_buda(small: bool) -> Two:
    return Two(
        unet(milesial, "down up out"), unet(buda, "down up out"), unet_rules(milesial, buda), ask=lambda m: m(image())
    )


@pair("MONAI's BasicUNet to milesial's: upcat_4 is up1")
def unet_monai(small: bool) -> Two:
    return Two(
        unet(monai, "down up out"), unet(milesial, "down up out"), unet_rules(monai, milesial), ask=lambda m: m(image())
    )


@pair("Buda's U-Net to MONAI's BasicUNet, listed decoder first")
def unet_turned(small: bool) -> Two:
    return Two(unet(buda, "out up down"), unet(monai, "down up out"), unet_rules(buda, monai), ask=lambda m: m(image()))


variant("milesial's U-Net to Buda's, shuffled", "milesial's U-Net to Buda's: up1 is decoder4", shuffled)
variant("MONAI's BasicUNet to milesial's, sorted", "MONAI's BasicUNet to milesial's: upcat_4 is up1", both_sorted)


# ---------------------------------------------------------------------------------------------- towers


def mlp(*widths: int) -> Any:
    from torch import nn

    layers: list[Any] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


@pair("Stable-Baselines' actor and critic to CleanRL's, critic first")
def actor_critic(small: bool) -> Two:
    """policy_net is the actor, value_net the critic; the last layers are elsewhere and of different widths."""
    from torch import nn

    source = nn.ModuleDict({
        "mlp_extractor": nn.ModuleDict({"policy_net": mlp(8, 64, 64), "value_net": mlp(8, 64, 64)}),
        "action_net": nn.Linear(64, 4), "value_net": nn.Linear(64, 1),
    })  # fmt: skip
    target = nn.ModuleDict({"critic": mlp(8, 64, 64, 1), "actor": mlp(8, 64, 64, 4)})
    rules = [
        "mlp_extractor.policy_net.{k**} -> actor.{k**}",
        "mlp_extractor.value_net.{k**} -> critic.{k**}",
        "action_net.{p*} -> actor.4.{p*}",
        "value_net.{p*} -> critic.4.{p*}",
    ]

    def ask(model: Any) -> Any:
        import torch

        x = rows(8)
        parts = model["mlp_extractor"]
        hidden = parts["policy_net"](x).tanh(), parts["value_net"](x).tanh()
        return torch.cat([model["action_net"](hidden[0]), model["value_net"](hidden[1])], -1)

    def ask_target(model: Any) -> Any:
        import torch

        return torch.cat([model["actor"](rows(8)), model["critic"](rows(8))], -1)

    return Two(source, target, rules, ask=ask, ask_target=ask_target)


def two_towers(a: str, b: str, make: Callable[[], Any]) -> Any:
    from torch import nn

    return nn.ModuleDict({a: make(), b: make()})


def ask_towers(a: str, b: str) -> Callable[[Any], Any]:
    return lambda model: model[a](image()) + 2 * model[b](image())


@pair("left and right towers, listed the other way round")
def left_right(small: bool) -> Two:
    from tests.bench.match.pairs_hand import small_net

    rules = ["left.{k**} -> left_branch.{k**}", "right.{k**} -> right_branch.{k**}"]
    return Two(
        two_towers("left", "right", small_net), two_towers("right_branch", "left_branch", small_net), rules,
        ask=ask_towers("left", "right"), ask_target=ask_towers("left_branch", "right_branch"),
    )  # fmt: skip


@pair("generators A and B of a CycleGAN, B first")
def generators(small: bool) -> Two:
    from tests.bench.match.pairs_hand import small_net

    rules = ["G_A.{k**} -> netG_A.{k**}", "G_B.{k**} -> netG_B.{k**}"]
    return Two(
        two_towers("G_A", "G_B", small_net), two_towers("netG_B", "netG_A", small_net), rules,
        ask=ask_towers("G_A", "G_B"), ask_target=ask_towers("netG_A", "netG_B"),
    )  # fmt: skip


@pair("student and teacher, only the student is wanted")
def student(small: bool) -> Two:
    from tests.bench.match.pairs_hand import small_net

    return Two(
        two_towers("teacher", "student", small_net), two_towers("student_backbone", "head", small_net),
        ["student.{k**} -> student_backbone.{k**}", "teacher.{k**} -> !"], missing=["head.*"],
        ask=lambda m: m["student"](image()), ask_target=lambda m: m["student_backbone"](image()),
    )  # fmt: skip


@pair("DINO: student and teacher alike, one backbone is wanted")
def dino(small: bool) -> Two:
    """What is meant is the teacher's; nothing in the headers says so."""
    from torch import nn

    from tests.bench.match.pairs_hand import small_net

    def saved(state: State) -> State:
        return renamed(["student.{k**} -> student.module.backbone.{k**}", "teacher.{k**} -> teacher.backbone.{k**}"])(
            state
        )

    return Two(
        two_towers("student", "teacher", small_net), nn.ModuleDict({"backbone": small_net()}),
        ["student.{k**} -> !", "teacher. ->"], source_file=saved, undecided=["*"],
        ask=lambda m: m["teacher"](image()), ask_target=lambda m: m["backbone"](image()),
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- numbers


@pair("zero-padded blocks, listed by name")
def padded(small: bool) -> Two:
    """block_00 to block_11; the target counts layers from 1 and its own listing is by number."""
    forth = [f"layers.{i}.{{k**}} -> block_{i:02}.{{k**}}" for i in range(12)]
    back = [f"layers.{i}.{{k**}} -> encoder.layer{i + 1}.{{k**}}" for i in range(12)]
    rules = [f"block_{i:02}.{{k**}} -> encoder.layer{i + 1}.{{k**}}" for i in range(12)]

    def source(state: State) -> State:
        found = renamed(forth)(state)
        return {key: found[key] for key in sorted(found)}

    return Two(
        encoder(layers=12), encoder(layers=12), rules, source_file=source, target_file=renamed(back),
        proof="by construction",
    )  # fmt: skip


variant("layer1 to layer12, both listed by name", "zero-padded blocks, listed by name", both_sorted)


@pair("blocks called by letters, parts in camelCase")
def camel(small: bool) -> Two:
    forth = [f"layers.{i}.{{k**}} -> encoderBlock{letter}.{{k**}}" for i, letter in enumerate("ABCD")]
    forth += ["---", ".self_attn. -> .selfAttention.", ".out_proj. -> .outputProjection.",
              ".linear1. -> .feedForward.linearOne.", ".linear2. -> .feedForward.linearTwo.",
              ".norm1. -> .attentionNorm.", ".norm2. -> .feedForwardNorm."]  # fmt: skip
    to = "layers.{i=0|1|2|3}."
    block = "encoderBlock{i=A|B|C|D}."
    rules = [
        f"{block}selfAttention.in_proj_{{p*}} -> {to}self_attn.in_proj_{{p*}}",
        f"{block}selfAttention.outputProjection.{{p*}} -> {to}self_attn.out_proj.{{p*}}",
        f"{block}feedForward.linear{{n=One|Two}}.{{p*}} -> {to}linear{{n=1|2}}.{{p*}}",
        f"{block}{{n=attentionNorm|feedForwardNorm}}.{{p*}} -> {to}{{n=norm1|norm2}}.{{p*}}",
    ]
    return Two(encoder(), encoder(), rules, source_file=renamed(forth), ask=lambda m: m(rows()))


@pair("one block is wider than in the source")
def wider(small: bool) -> Two:
    """The same names; the tensors of the wider feed-forward have no source."""
    from torch import nn

    target = separate()
    target[2].fc1, target[2].fc2 = nn.Linear(32, 96), nn.Linear(96, 32)
    rules = [*SEPARATE, "---", "2.{n=fc1|fc2}.{p*} -> was.2.{n}.{p*}"]
    return Two(
        encoder(), target, rules, missing=["2.fc1.*", "2.fc2.*"], undecided=["2.fc2.bias"], proof="by construction"
    )


@pair("fc1, fc2, fc3 to a Sequential: one width throughout")
def plain_mlp(small: bool) -> Two:
    from torch import nn

    source = nn.ModuleDict({f"fc{n}": nn.Linear(32, 32) for n in range(1, 6)})
    target = nn.ModuleDict({"net": mlp(32, 32, 32, 32, 32, 32)})

    def ask(model: Any) -> Any:
        x = rows()
        for n in range(1, 6):
            x = model[f"fc{n}"](x if n == 1 else x.tanh())
        return x

    rules = [f"fc{n}.{{p*}} -> net.{2 * n - 2}.{{p*}}" for n in range(1, 6)]
    return Two(source, target, rules, ask=ask, ask_target=lambda m: m["net"](rows()))


@pair("a Sequential to input, hidden and output layers")
def named_mlp(small: bool) -> Two:
    from torch import nn

    target = nn.ModuleDict({
        "output_layer": nn.Linear(32, 32), "hidden_layers": nn.ModuleList(nn.Linear(32, 32) for _ in range(3)),
        "input_layer": nn.Linear(32, 32),
    })  # fmt: skip

    def ask(model: Any) -> Any:
        x = model["input_layer"](rows())
        for layer in model["hidden_layers"]:
            x = layer(x.tanh())
        return model["output_layer"](x.tanh())

    rules = ["0.{p*} -> input_layer.{p*}", "8.{p*} -> output_layer.{p*}",
             *(f"{2 * n + 2}.{{p*}} -> hidden_layers.{n}.{{p*}}" for n in range(3))]  # fmt: skip
    return Two(mlp(32, 32, 32, 32, 32, 32), target, rules, ask=lambda m: m(rows()), ask_target=ask)


variant("a Sequential to input, hidden and output layers, sorted",
        "a Sequential to input, hidden and output layers", sorted_keys)  # fmt: skip
