"""100,000 keys: how long a match takes, and how much memory.

python -m tests.bench.match.large [KEYS]
"""

from __future__ import annotations

import resource
import sys
import time

from ckptool.core.spec import TensorSpec

Specs = dict[str, TensorSpec]

EXPERTS = 64


def sides(keys: int) -> tuple[Specs, Specs, dict[str, str]]:
    """A mixture-of-experts model of about so many tensors in two vocabularies, and the true source of each target."""
    rows: list[tuple[str, str, tuple[int, ...]]] = [
        ("tok_embeddings.weight", "model.embed_tokens.weight", (32000, 1024)),
        ("norm.weight", "model.norm.weight", (1024,)),
    ]
    for layer in range(keys // (EXPERTS * 3 + 7)):
        here, there = f"layers.{layer}.", f"model.layers.{layer}."
        for ours, theirs, shape in (
            ("attention.wq", "self_attn.q_proj", (2048, 1024)),
            ("attention.wk", "self_attn.k_proj", (256, 1024)),
            ("attention.wv", "self_attn.v_proj", (256, 1024)),
            ("attention.wo", "self_attn.o_proj", (1024, 2048)),
            ("attention_norm", "input_layernorm", (1024,)),
            ("ffn_norm", "post_attention_layernorm", (1024,)),
            ("feed_forward.gate", "mlp.gate", (EXPERTS, 1024)),
        ):
            rows.append((f"{here}{ours}.weight", f"{there}{theirs}.weight", shape))
        for expert in range(EXPERTS):
            for ours, theirs, shape in (
                ("w1", "gate_proj", (768, 1024)), ("w2", "down_proj", (1024, 768)), ("w3", "up_proj", (768, 1024)),
            ):  # fmt: skip
                rows.append((f"{here}feed_forward.experts.{expert}.{ours}.weight",
                             f"{there}mlp.experts.{expert}.{theirs}.weight", shape))  # fmt: skip
    source = {ours: TensorSpec(ours, "bfloat16", shape) for ours, _, shape in rows}
    target = {theirs: TensorSpec(theirs, "bfloat16", shape) for _, theirs, shape in sorted(rows, key=lambda r: r[1])}
    return source, target, {theirs: ours for ours, theirs, _ in rows}


def main(keys: int) -> None:
    """Prints one line."""
    source, target, truth = sides(keys)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    from ckptool.matching.match import match

    report = match(source, target)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    given = {target: pair.sources for pair in report.accepted() for target in pair.targets}
    wrong = sum(sources != (truth[target],) for target, sources in given.items())
    print(
        f"{len(source):,} keys: {seconds:.1f} s, {peak / 1024:,.0f} MB in all ({(peak - before) / 1024:,.0f} MB of it"
        f" by the match); {len(given):,} matched, {wrong:,} wrong; {len(report.rules)} rules"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
