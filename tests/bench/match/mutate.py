"""Every pair of the benchmark, changed at random so that its truth stays known: is a wrong pair ever written?

python -m tests.bench.match.mutate [--only NAME] [--seed N] [--count N] [--mistakes N] [--log FILE]

`fuzz.py` lays a model against its own edited copy; here the sides are different code bases, and changes come on top:
other words, another prefix, another order, blocks that are gone, blocks that are new, another head, one stage of other
widths. Names of the source and layouts stay as they are.
"""

from __future__ import annotations

import argparse
import json
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

from ckptool.core.plan import sources_of
from ckptool.core.spec import TensorSpec
from tests.bench.match.pairs import Case, Link, case_of, entries
from tests.bench.match.run import ours
from tests.bench.match.score import Score, judge

Change = Callable[[Random, Case], Case | None]

_PREFIXES = ("module.", "model.", "_orig_mod.", "net.", "student.", "backbone.", "encoder.", "ema.model.")
_SYLLABLES = ["ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "xu", "za"]
_LEAVES = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked", "kernel", "gamma", "beta"}
_WORD = re.compile(r"[A-Za-z]{2,}")


def _without_modules(case: Case) -> Case:
    return replace(case, source_modules=None, target_modules=None)


def _kept(case: Case, source: dict[str, TensorSpec], target: dict[str, TensorSpec]) -> Case:
    """The truth among what is left; a group that lost a member is no truth any more."""
    links = []
    for link in case.truth:
        steps = tuple(step for step in link.steps if step.target.key in target)
        needed = {source.key for step in steps for source in sources_of(step.value)}
        # a group that is cut belongs to no one answer: its targets keep the steps that are still whole
        steps = tuple(step for step in steps if all(s.key in source for s in sources_of(step.value)))
        if not steps:
            continue
        sources = tuple(key for key in link.sources if key in needed and key in source)
        links.append(replace(link, targets=tuple(step.target.key for step in steps), sources=sources, steps=steps))
    return _without_modules(replace(case, source=source, target=target, truth=tuple(links)))


def renamed(case: Case, names: dict[str, str]) -> Case | None:
    """Other names on the target's side; None if two fall together."""
    if len(set(names.values())) < len(names) or all(old == new for old, new in names.items()):
        return None
    target = {names[key]: replace(spec, key=names[key]) for key, spec in case.target.items()}
    links: list[Link] = []
    for link in case.truth:
        steps = tuple(replace(s, target=replace(s.target, key=names[s.target.key])) for s in link.steps)
        links.append(replace(link, targets=tuple(names[key] for key in link.targets), steps=steps))
    return _without_modules(replace(case, target=target, truth=tuple(links)))


def words(rng: Random, case: Case) -> Case | None:
    """A few words of the target become others, each everywhere; leaves stay."""
    found = sorted({word for key in case.target for word in _WORD.findall(key) if word not in _LEAVES})
    if not found:
        return None
    made = {
        word: "".join(rng.choices(_SYLLABLES, k=3)) for word in rng.sample(found, min(len(found), rng.randint(1, 3)))
    }
    return renamed(case, {key: _WORD.sub(lambda m: made.get(m[0], m[0]), key) for key in case.target})


def prefix(rng: Random, case: Case) -> Case | None:
    """Something stands in front of every name of the target."""
    front = rng.choice(_PREFIXES)
    return renamed(case, {key: front + key for key in case.target})


def order(rng: Random, case: Case) -> Case | None:
    """The target's tensors in any order."""
    keys = list(case.target)
    rng.shuffle(keys)
    return _without_modules(replace(case, target={key: case.target[key] for key in keys}))


def _lists(case: Case, of_source: bool = False) -> dict[str, list[int]]:
    """Lists whose blocks have the same numbers on both sides: else a header does not tell which block is missing."""
    found: dict[str, set[int]] = {}
    odd = set()
    other = {a: b for link in case.truth for b in link.targets for a in link.sources} if of_source else {
        b: a for link in case.truth for b in link.targets for a in link.sources}  # fmt: skip
    for key in case.source if of_source else case.target:
        for match in re.finditer(r"[./](\d+)(?=[./])", key):
            path = key[: match.start() + 1]
            found.setdefault(path, set()).add(int(match[1]))
            if key in other and match[1] not in re.findall(r"\d+", other[key]):
                odd.add(path)
    return {path: sorted(numbers) for path, numbers in found.items() if len(numbers) > 2 and path not in odd}


def _block(path: str, number: int, key: str) -> bool:
    return key.startswith((f"{path}{number}.", f"{path}{number}/"))


def dropped(rng: Random, case: Case) -> Case | None:
    """A block of the target is gone, not the first; the others keep their numbers."""
    lists = _lists(case)
    if not lists:
        return None
    path = rng.choice(sorted(lists))
    number = rng.choice(lists[path][1:])
    return _kept(case, case.source, {k: spec for k, spec in case.target.items() if not _block(path, number, k)})


def source_dropped(rng: Random, case: Case) -> Case | None:
    """A block of the source is gone, not the first; what was made of it has no source any more."""
    lists = _lists(case, of_source=True)
    if not lists:
        return None
    path = rng.choice(sorted(lists))
    number = rng.choice(lists[path][1:])
    return _kept(case, {k: spec for k, spec in case.source.items() if not _block(path, number, k)}, case.target)


def inserted(rng: Random, case: Case) -> Case | None:
    """A block like the last stands behind it, in the target, and has no source."""
    lists = _lists(case)
    if not lists:
        return None
    path = rng.choice(sorted(lists))
    last = lists[path][-1]
    target = {}
    for key, spec in case.target.items():
        target[key] = spec
        if _block(path, last, key):
            new = f"{path}{last + 1}{key[len(f'{path}{last}') :]}"
            if new in case.target:
                return None
            target[new] = replace(spec, key=new)
    return _kept(case, case.source, target)


def head(rng: Random, case: Case) -> Case | None:
    """The target's last matrix has other rows, and its bias too."""
    last = next((key for key in reversed(case.target) if len(case.target[key].shape) == 2), None)
    if last is None or case.target[last].shape[0] < 2:
        return None
    rows, more = case.target[last].shape[0], rng.choice((3, 7, 11))
    module = re.sub(r"[./][^./]+$", "", last)
    changed = [last]
    bias = case.target.get(f"{module}.bias")
    if bias is not None and bias.shape == (rows,):
        changed.append(bias.key)
    specs = {key: case.target[key] for key in changed}
    return _reshaped(case, {k: replace(spec, shape=(rows + more, *spec.shape[1:])) for k, spec in specs.items()})


def stage(rng: Random, case: Case) -> Case | None:
    """One module of the target is wider: every axis of its tensors but those of kernels grows."""
    lists = _lists(case)
    if not lists:
        return None
    path = rng.choice(sorted(lists))
    number = rng.choice(lists[path])
    new = {}
    for key, spec in case.target.items():
        if _block(path, number, key) and spec.shape:
            axes = [size + 8 * (at < 2 and size > 3) for at, size in enumerate(spec.shape)]
            new[key] = replace(spec, shape=tuple(axes))
    return _reshaped(case, new)


def _reshaped(case: Case, new: dict[str, TensorSpec]) -> Case | None:
    """What has another shape now has no source."""
    changed = {key for key, spec in new.items() if spec.shape != case.target[key].shape}
    if not changed:
        return None
    kept = _kept(case, case.source, {key: spec for key, spec in case.target.items() if key not in changed})
    return replace(kept, target={key: new.get(key, spec) for key, spec in case.target.items()})


CHANGES: dict[str, Change] = {change.__name__: change for change in (
    words, prefix, order, dropped, source_dropped, inserted, head, stage)}  # fmt: skip


# one of them in a mutant: blocks 1 to 12 where the other side has 0 to 11 may also be counted from 1
_OF_BLOCKS = {"dropped", "source_dropped", "inserted", "stage"}


def mutated(case: Case, seed: int) -> tuple[Case, list[str]]:
    """The case after one to three changes, and their names."""
    rng = Random(f"{case.name} {seed}")
    done: list[str] = []
    for name in rng.sample(sorted(CHANGES), rng.randint(1, 3)):
        if name in _OF_BLOCKS and _OF_BLOCKS & set(done):
            continue
        changed = CHANGES[name](rng, case)
        if changed is not None:
            case, done = changed, [*done, name]
    return case, done


def main(arguments: list[str] | None = None) -> None:
    """Prints each case with a wrong pair, and counts by change."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.match.mutate")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1, help="mutants of each pair")
    parser.add_argument("--mistakes", type=int, default=2)
    parser.add_argument("--log", type=Path, help="a line of JSON for each case")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    total: dict[str, Score] = {}
    number = 0
    for entry in entries(options.only):
        plain = case_of(entry)
        for seed in range(options.seed, options.seed + options.count):
            case, done = mutated(plain, seed)
            score, mistakes = judge(case, ours(case))
            number += 1
            for name in ("all", *done):
                total[name] = total.get(name, Score()) + score
            if options.log:
                counts = {"given": score.given, "wrong": score.wrong, "layouts": score.layouts}
                found = {"found": score.one_found + score.groups_found, "of": score.one + score.groups}
                row = {"case": case.name, "seed": seed, "changes": done, **counts, **found}
                with options.log.open("a") as log:
                    log.write(json.dumps(row) + "\n")
            if mistakes:
                print(
                    f"{case.name}, seed {seed}, {', '.join(done)}: wrong {score.wrong}, layout {score.layouts}",
                    flush=True,
                )
            for mistake in mistakes[: options.mistakes]:
                right = mistake.layout or f"right is {', '.join(mistake.right) or 'nothing'}"
                print(f"    {mistake.target} <- {', '.join(mistake.given)}: {right}", flush=True)
    for name, score in sorted(total.items()):
        found, asked = score.one_found + score.groups_found, score.one + score.groups
        share = f"{100 * found / asked:.1f} %" if asked else "-"
        print(f"{name}: {score.given} given, wrong {score.wrong}, wrong layout {score.layouts}, found {share}")
    print(f"{number} mutants")


if __name__ == "__main__":
    main()
