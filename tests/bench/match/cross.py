"""Every model against models of other families: nothing belongs together, so nothing should be matched.

python -m tests.bench.match.cross [--seed N] [--count N] [--seconds N] [--cache FOLDER] [--log FILE]
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from tests.bench.match.zoo import Specs, models

# Whose parts have one origin, by patterns of their names: two models that share a line may well share tensors. Rather
# too wide than too narrow; what no line knows, and what has towers of several lines, is left out.
LINES = {
    "ResNets, and what has them as a backbone": r"""(?<!inception_)res(?!mlp)(2|ne[xs]?t|net)|senet|sknet|bit$|dpn|dla|
        hrnet|tresnet|regnet|byoa|byob|rcnn|fcn|deeplabv3_r|fcos|retina|detr|r3d|mc3|r2plus|nfnet|csp|vovnet|
        selecsls|transformer_hybrid|maskformer|oneformer|table|uvdoc|textnet|hgnet|d_fine|deim|xception|darknet|
        lcnet""",
    "VGG, AlexNet": r"vgg|alexnet|ssd300",
    "SqueezeNet": r"squeezenet",
    "DenseNet": r"densenet|rdnet",
    "Inception": r"inception_v|googlenet|inception_resnet|s3d|nasnet",
    "inverted residuals": r"""efficientnet|mobilenet|mnasnet|mnas|hardcore|ghost|ssdlite|lraspp|rexnet|mobilevit|repvit|
        edgenext|fastvit|fasternet|efficientformer|swiftformer|starnet|shvit|levit|lcnet|efficientvit|tiny_vit|nextvit|
        maxv|maxx|lowformer|iformer|cpubone|csatv2|efficientvim|align|gemma3n""",
    "ShuffleNet": r"shufflenet",
    "ConvNeXts and what follows them": r"""convnext|inception_next|metaformer|poolformer|mambaout|focalnet|edgenext|
        nextvit|davit|convmixer""",
    "Swin and its kin": r"swin|focalnet|maskformer|oneformer|nest_|twins",
    "vision transformers": r"""(?<!efficient)(?<!mobile)(?<!fast)(?<!da)(?<!tiny_)(?<!gc)(?<!next)(?<!rep)vit|deit|beit|
        eva$|eva/|dino|clip|siglip|ijepa|cait|xcit|volo|crossvit|mae|radio|mlcd|aimv2|pixio|yolos|imagegpt|
        hiera|mvit|pvt|
        twins|segformer|glpn|nest|tnt|pit/|visformer|sam_vision|seggpt|flava|timesformer|sequencer|mlp_mixer|
        coat/|cvt|vitamin|naflex|data2vec_v|vbert|vilt|layoutlmv3|visual""",
    "BERT": r"""bert|roberta|electra|camembert|ernie$|ernie/|mpnet|layoutlm|lilt|markuplm|luke|bros|tapas|splinter|
        nystrom|mra$|yoso|big_bird$|longformer|roc_|roformer|canine|fnet|xmod|vilt|lxmert|qformer|dpr|gte|esm|
        data2vec|esmc|megatron|flava|chinese|altclip""",
    "GPT": r"/(gpt|codegen|bloom|falcon$|mpt|biogpt|xglm|ctrl|openai|opt$|decision|imagegpt|persimmon|xlm$|flaubert)",
    "Llama and all decoders after it": r"""/(llama$|mistral$|mixtral|qwen[23](_moe)?$|gemma2?$|cohere2?$|olmo|
        phi|granite$|granitemoe|
        stablelm|starcoder|glm4?$|deepseek_v\d$|smollm|exaone|arcee|apertus|helium|nanochat|minimax(_m2)?$|seed|
        afmoe|ernie4_5$|jetmoe|
        cwm|dbrx|bitnet|diffllama|doge|flex_olmo|hy_v|jais|laguna|mellum|ministral|youtu|vaultgemma|gpt_oss|
        nemotron$|minicpm3)""",
    "BART": r"""/(bart|mbart|pegasus|marian|blenderbot|led$|m2m|plbart|prophetnet|fsmt|mvp|bigbird_pegasus|whisper|
        speech_to|opt$|xglm|biogpt)""",
    "T5": r"/(t5$|mt5|umt5|switch|longt5|udop|pop2)",
    "states instead of attention": r"/(mamba2?$|falcon_m|rwkv|xlstm|recurrent|bamba|jamba|zamba|falcon_h1|nemotron_h)",
    "wav2vec": r"""/(wav2vec2|hubert|wavlm|unispeech|sew|seamless|parakeet|lasr|speecht5|fastspeech|
        granite_speech5|data2vec_a|xcodec)""",
    "codecs": r"/(encodec|dac|mimi$|xcodec|neucodec|vibevoice|univnet|vits|pocket)",
    "time series": r"/(patchts|timesfm|informer|autoformer|time_series)",
}
_LINES = {line: re.compile(re.sub(r"\s+", "", words)) for line, words in LINES.items()}


def lines_of(name: str) -> frozenset[str]:
    """The lines that a model belongs to."""
    return frozenset(line for line, words in _LINES.items() if words.search(name.replace("-", "_")))


def pairs(zoo: list[tuple[str, Specs]], seed: int) -> Iterator[tuple[int, int]]:
    """Pairs of models without a common line, every one once, in random order; those with shapes in common first."""
    rng = Random(seed)
    lines = [lines_of(name) for name, _ in zoo]
    shapes = [{spec.shape for spec in specs.values() if len(spec.shape) > 1} for _, specs in zoo]
    known = [at for at in range(len(zoo)) if lines[at]]
    found = [(a, b) for a in known for b in known if not lines[a] & lines[b]]
    rng.shuffle(found)
    yield from sorted(found, key=lambda ab: len(shapes[ab[0]] & shapes[ab[1]]) <= 2)


def main(arguments: list[str] | None = None) -> None:
    """Prints each pair of models in which something was matched, and the counts."""
    from ckptool.matching.match import match

    parser = argparse.ArgumentParser(prog="python -m tests.bench.match.cross")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--most", type=int, default=400, help="keys of a model")
    parser.add_argument("--cache", type=Path, help="a folder that keeps the models' headers")
    parser.add_argument("--log", type=Path, help="a line of JSON for each pair")
    options = parser.parse_args(arguments)
    zoo = list(models(options.cache, options.most))
    totals: Counter[str] = Counter()
    log = options.log.open("a") if options.log else None
    start = time.perf_counter()
    for a, b in pairs(zoo, options.seed):
        if totals["pairs"] >= options.count or time.perf_counter() - start > options.seconds:
            break
        (ours, source), (theirs, target) = zoo[a], zoo[b]
        begun = time.perf_counter()
        found = match(source, target).accepted()
        tensors = sum(len(pair.targets) for pair in found)
        seconds = time.perf_counter() - begun
        totals.update(pairs=1, matched=int(tensors > 0), tensors=tensors, slow=int(seconds > 5))
        examples: list[Any] = [
            (*pair.sources, "->", *pair.targets, pair.layout, pair.confidence, *(one.slug for one in pair.evidence))
            for pair in found[:5]
        ]
        if tensors:
            print(f"{ours} ({len(source)}) > {theirs} ({len(target)}): {tensors}", *examples, sep="\n    ")
        if log:
            log.write(json.dumps([ours, theirs, tensors, round(seconds, 2), examples]) + "\n")
            log.flush()
    print(dict(totals))


if __name__ == "__main__":
    main()
