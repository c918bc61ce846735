"""Pairs with parts that are alike: two encoders, four nets, actor and critic; small models with nothing in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.bench.match.pairs import (
    Two,
    headers_only,
    image,
    pair,
    shuffled,
    variant,
)
from tests.bench.match.pairs_hand import chain, encoder, rows, small_net


@pair("MoCo: two encoders alike, one is wanted")
def moco(small: bool) -> Two:
    """The query encoder is meant, but nothing in the target says so: a match is right or nothing, no miss."""
    import torch
    from torch import nn

    source = nn.ModuleDict({"encoder_q": small_net(), "encoder_k": small_net()})
    source.register_buffer("queue", torch.randn(32, 64))
    target = nn.ModuleDict({"backbone": small_net()})
    return Two(
        source, target, ["encoder_k.{k**} -> !", "---", "encoder_q. -> backbone."], undecided=["*"],
        ask=lambda m: m["encoder_q"](image()), ask_target=lambda m: m["backbone"](image()),
    )  # fmt: skip


@pair("CycleGAN: four nets, two and two alike")
def cyclegan(small: bool) -> Two:
    from torch import nn

    source = nn.ModuleDict(
        {"netG_A": small_net(), "netG_B": small_net(), "netD_A": chain([8, 8]), "netD_B": chain([8, 8])}
    )
    names = {"G_A": "generator_A", "G_B": "generator_B", "D_A": "discriminator_A", "D_B": "discriminator_B"}
    order = ["discriminator_B", "discriminator_A", "generator_B", "generator_A"]
    back = {new: old for old, new in names.items()}
    target = nn.ModuleDict({name: small_net() if name[0] == "g" else chain([8, 8]) for name in order})

    def ask(model: Any, name: Callable[[str], str]) -> Any:
        return sum((at + 1) * model[name(back[net])](image()).mean((1, 2, 3)) for at, net in enumerate(order))

    return Two(
        source, target, [f"net{old}. -> {new}." for old, new in names.items()],
        ask=lambda m: ask(m, lambda net: f"net{net}"), ask_target=lambda m: ask(m, lambda net: names[net]),
    )  # fmt: skip


@pair("two towers alike, listed the other way round")
def towers(small: bool) -> Two:
    from torch import nn

    source = nn.ModuleDict({"image_encoder": encoder(layers=3), "text_encoder": encoder(layers=3)})
    target = nn.ModuleDict({"text_model": encoder(layers=3), "vision_model": encoder(layers=3)})

    def ask(model: Any, first: str, second: str) -> Any:
        return model[first](rows()) + 2 * model[second](rows())

    return Two(
        source, target, ["image_encoder. -> vision_model.", "text_encoder. -> text_model."],
        ask=lambda m: ask(m, "image_encoder", "text_encoder"),
        ask_target=lambda m: ask(m, "vision_model", "text_model"),
    )  # fmt: skip


@pair("two towers alike without a word in common")
def towers_unnamed(small: bool) -> Two:
    """Only the order speaks: a match is right or nothing, no miss."""
    from torch import nn

    source = nn.ModuleDict({"tower_x": encoder(layers=3), "tower_y": encoder(layers=3)})
    target = nn.ModuleDict({"left": encoder(layers=3), "right": encoder(layers=3)})

    def ask(model: Any) -> Any:
        first, second = model.values()
        return first(rows()) + 2 * second(rows())

    return Two(source, target, ["tower_x. -> left.", "tower_y. -> right."], undecided=["*"], ask=ask)


@pair("actor and critic of one shape, target shuffled")
def actor_critic(small: bool) -> Two:
    from torch import nn

    def net() -> Any:
        return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))

    source = nn.ModuleDict({"actor": net(), "critic": net()})
    target = nn.ModuleDict({"policy": nn.ModuleDict({"value_critic": net(), "pi_actor": net()})})

    def ask(model: Any, actor: str, critic: str) -> Any:
        return model[actor](rows(8)) + 2 * model[critic](rows(8))

    return Two(
        source, target, ["actor. -> policy.pi_actor.", "critic. -> policy.value_critic."],
        ask=lambda m: ask(m, "actor", "critic"), ask_target=lambda m: ask(m["policy"], "pi_actor", "value_critic"),
    )  # fmt: skip


variant("two towers alike, listed the other way round, headers only", "two towers alike, listed the other way round",
        headers_only)  # fmt: skip
variant("actor and critic of one shape, really shuffled", "actor and critic of one shape, target shuffled", shuffled)


# ---------------------------------------------------------------------------------------------- nothing in common


@pair("unrelated: an MLP and an encoder of one width")
def unrelated_small(small: bool) -> Two:
    from torch import nn

    mlp = nn.Sequential(*(nn.Linear(32, 32) for _ in range(8)))
    return Two(mlp, encoder(), None)


@pair("unrelated: a GAN's discriminator and an RNN")
def unrelated_rnn(small: bool) -> Two:
    from torch import nn

    return Two(small_net(), nn.ModuleDict({"rnn": nn.LSTM(32, 32, 2), "head": nn.Linear(32, 10)}), None)
