"""Opens, names and transplants every layout, into its plain counterpart and back, and counts the wrong turns.

    python -m tests.bench.layouts.run

A turn is what a person types. The first is the plainest command; where its answer names a command, that is the next.
Wrong is a tensor in the wrong place; a dead end is an error, or a half-filled model, that names no way on.
"""

from __future__ import annotations

import contextlib
import io
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ckptool.cli.app import run
from tests.bench.layouts.layouts import Layout, Shapes, layouts

MOST_TURNS = 3


@dataclass
class Way:
    """From one file into another.

    Attributes:
        turns: commands until the model was filled as far as it can be.
        filled: tensors that came where they belong.
        wanted: how many could.
        wrong: tensors that hold another tensor's values.
        dead_end: the last answer, where it named no way on.
    """

    turns: int = 0
    filled: int = 0
    wanted: int = 0
    wrong: list[str] = field(default_factory=list)
    dead_end: str = ""

    @property
    def wrong_turns(self) -> int:
        """Turns beyond the first that was advised, wrong tensors and dead ends."""
        return max(0, self.turns - 2) + bool(self.wrong) + bool(self.dead_end)


@dataclass
class Outcome:
    """What came of one layout."""

    layout: Layout
    unnamed: list[str]
    forth: Way
    back: Way

    @property
    def wrong_turns(self) -> int:
        return bool(self.unnamed) + self.forth.wrong_turns + self.back.wrong_turns


def weights(shapes: Shapes, seed: int) -> dict[str, torch.Tensor]:
    """Random weights, no two tensors alike; counters are equal numbers."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.tensor(7) if key.endswith("num_batches_tracked") else torch.randn(shape, generator=generator)
        for key, shape in shapes.items()
    }


def typed(*words: str) -> tuple[int, str]:
    """The exit code of a command, and all that it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = run(words)
    return int(code), out.getvalue()


def tried(layout: Layout, folder: Path) -> Outcome:
    """One layout: opened, named, into its plain model and back."""
    own, plain = weights(layout.shapes, 1), weights(layout.plain, 2)
    file, other = folder / "theirs.pth", folder / "plain.pth"
    torch.save(layout.nest(own), file)
    torch.save(plain, other)
    told = typed("inspect", str(file))[1]
    unnamed = [word for word in layout.says if word not in " ".join(told.split())]
    forth = {old: new for old, new in layout.pairs.items() if layout.shapes[old] == layout.plain[new]}
    there = way(file, other, {new: own[old] for old, new in forth.items()}, plain, folder / "forth.pth")
    keys = dict(zip(own, layout.inside(own), strict=True))
    returned = {keys[old]: plain[new] for old, new in forth.items()}
    back = way(other, file, returned, layout.inside(own), folder / "back.pth")
    if layout.copies and back.wrong:
        state = read(folder / "back.pth")
        back.wrong = [
            key for key in back.wrong if not torch.equal(state[key], plain.get(layout.copies.get(key, ""), own[key]))
        ]
    return Outcome(layout, unnamed, there, back)


def crossed(one: Layout, other: Layout, folder: Path) -> Way | None:
    """From one layout into another, by the plain model that both have; None if they have no model in common."""
    inside = {plain: key for key, plain in other.pairs.items()}
    shared = {key: inside[plain] for key, plain in one.pairs.items() if plain in inside}
    shared = {key: new for key, new in shared.items() if one.shapes[key] == other.shapes[new]}
    if len(shared) * 2 < len(one.pairs):
        return None
    first, second = weights(one.shapes, 3), weights(other.shapes, 4)
    torch.save(one.nest(first), folder / "one.pth")
    torch.save(other.nest(second), folder / "other.pth")
    names = dict(zip(second, other.inside(second), strict=True))
    wanted = {names[new]: first[key] for key, new in shared.items()}
    wanted |= {names[new]: value for new, value in _halves(first, one, other).items()}
    return way(folder / "one.pth", folder / "other.pth", wanted, other.inside(second), folder / "out.pth")


def _halves(values: Mapping[str, torch.Tensor], one: Layout, other: Layout) -> dict[str, torch.Tensor]:
    """Norms of the one that the other has split into IN and BN, as the other has them."""
    owners = {plain: key for key, plain in one.pairs.items()}
    found = {}
    for key in other.shapes:
        before, split, rest = key.partition(".bn1.IN.")
        plain = f"{before[before.find('layer') :]}.bn1"
        if split and f"{plain}.{rest}" in owners:
            half = other.shapes[key][0]
            for name in ("weight", "bias", "running_mean", "running_var"):
                whole = values[owners[f"{plain}.{name}"]]
                found[f"{before}.bn1.BN.{name}"] = whole[half:]
                if name in ("weight", "bias"):
                    found[f"{before}.bn1.IN.{name}"] = whole[:half]
    return found


def way(
    source: Path, target: Path, wanted: Mapping[str, torch.Tensor], before: Mapping[str, torch.Tensor], out: Path
) -> Way:
    """From a file into another by what a person types first, and what the answers name."""
    found = Way(wanted=len(wanted))
    words = ["transplant", str(source), "--into", str(target)]
    answer = ""
    while found.turns < MOST_TURNS:
        found.turns += 1
        code, answer = typed(*words, "-o", str(out), "--force")
        if code == 0:
            state = read(out)
            found.wrong = [key for key in before if not _is_right(key, state, wanted, before)]
            found.filled = sum(key in state and torch.equal(state[key], value) for key, value in wanted.items())
            if found.filled == found.wanted:
                return found
        following = advised(answer)
        if following is None or following == words:
            found.dead_end = answer
            return found
        words = following
    found.dead_end = answer
    return found


def _is_right(
    key: str, state: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], before: Mapping[str, torch.Tensor]
) -> bool:
    """A tensor is the one that belongs there, or the target's own still."""
    value = state.get(key)
    if value is None or key.endswith("num_batches_tracked"):
        return True
    return any(each is not None and torch.equal(value, each) for each in (wanted.get(key), before[key]))


def read(path: Path) -> dict[str, torch.Tensor]:
    state: Any = torch.load(path, weights_only=True)
    return dict(state)


def advised(text: str) -> list[str] | None:
    """The command that an answer names."""
    at = text.find("ckptool transplant ")
    return None if at < 0 else shlex.split(text[at:].splitlines()[0])[1:]


def main() -> int:
    """Prints a row for each layout; with --cross, for each pair of layouts of one model."""
    import os

    os.environ["COLUMNS"] = "1000"
    total = 0
    if "--cross" in sys.argv:
        return _crossings()
    if "--outsiders" in sys.argv:
        return _outsiders()
    print(f"{'layout':28} {'named':>7}  {'into plain':>14}  {'back':>14}  wrong turns")
    for layout in layouts():
        with TemporaryDirectory() as folder:
            outcome = tried(layout, Path(folder))
        total += outcome.wrong_turns
        named = "yes" if not outcome.unnamed else "no"
        ways = [f"{each.filled}/{each.wanted} in {each.turns}" for each in (outcome.forth, outcome.back)]
        print(f"{layout.name:28} {named:>7}  {ways[0]:>14}  {ways[1]:>14}  {outcome.wrong_turns}")
        for text in outcome.unnamed:
            print(f"    not said: {text}")
        for each in (outcome.forth, outcome.back):
            _explain(each)
    print(f"{total} wrong turns")
    return int(total > 0)


def _crossings() -> int:
    total = 0
    for one in layouts():
        for other in layouts():
            with TemporaryDirectory() as folder:
                found = None if one.name == other.name else crossed(one, other, Path(folder))
            if found is not None:
                total += found.wrong_turns
                print(
                    f"{one.name:24} {other.name:24} {found.filled}/{found.wanted} in {found.turns}  {found.wrong_turns}"
                )
                _explain(found)
    print(f"{total} wrong turns")
    return int(total > 0)


def _outsiders() -> int:
    """From each layout of `outsiders.py` into its plain model; what their judge forbids is wrong."""
    from tests.bench.layouts import outsiders

    total = 0
    for layout in outsiders.layouts():
        own, plain = (
            {
                key: torch.full(shape, 7) if outsiders.whole(key) else tensor
                for (key, shape), tensor in zip(shapes.items(), weights(shapes, seed).values(), strict=True)
            }
            for seed, shapes in ((1, layout.shapes), (2, layout.plain))
        )
        wanted = {
            new: own[old]
            for old, new in layout.pairs.items()
            if layout.shapes[old] == layout.plain[new] and not outsiders.whole(old)
        }
        with TemporaryDirectory() as name:
            folder = Path(name)
            torch.save(layout.nest(own), folder / "theirs.pth")
            torch.save(plain, folder / "plain.pth")
            told = " ".join(typed("inspect", str(folder / "theirs.pth"))[1].replace(",", "").split()).lower()
            unnamed = [word for word in layout.says if word.lower() not in told]
            found = way(folder / "theirs.pth", folder / "plain.pth", wanted, plain, folder / "out.pth")
            state = read(folder / "out.pth")
        never = [new for old, new in layout.never.items() if torch.equal(state[new], own[old])]
        found.wrong = [*never, *(key for key in found.wrong if key in wanted)]
        total += found.wrong_turns + bool(unnamed)
        named = "named" if not unnamed else f"not said: {', '.join(unnamed)}"
        print(f"{layout.name[:60]:60} {named}  {found.filled}/{found.wanted} in {found.turns}")
        _explain(found)
    print(f"{total} wrong turns")
    return int(total > 0)


def _explain(found: Way) -> None:
    if found.wrong:
        print(f"    wrong: {len(found.wrong)}: {', '.join(found.wrong[:3])}")
    if found.dead_end:
        print("    dead end: " + "\n      ".join(found.dead_end.splitlines()[-6:]))


if __name__ == "__main__":
    sys.exit(main())
