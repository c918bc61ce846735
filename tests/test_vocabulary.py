"""Rows of embeddings by the tokens of two tokenizers: equal to resizing and copying by hand."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import ckptool
from ckptool.cli.app import run
from ckptool.core.errors import CkptError
from ckptool.core.spec import TensorSpec
from ckptool.fits.tokens import parse_vocabulary, read_vocabulary
from ckptool.fits.vocabulary import TokenRows
from ckptool.models import import_torchvision

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import_torchvision()
pytestmark = pytest.mark.filterwarnings("ignore")

OLD = ["<pad>", "<s>", "</s>", *"abcdefghij"]
NEW = ["</s>", "<s>", "new one", *"jihgfea", "zwei", "drei", "<mask>"]  # no <pad>
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")
KINDS = ["BPE", "WordPiece", "WordLevel", "Unigram"]


def tokenizer(folder: Path, words: list[str], kind: str = "BPE") -> Path:
    """A tokenizer of the library itself, saved; its first three tokens are added ones."""
    tokenizers = pytest.importorskip("tokenizers")
    folder.mkdir(parents=True, exist_ok=True)
    ids = {word: number for number, word in enumerate(words)}
    models = tokenizers.models
    if kind == "Unigram":
        model = models.Unigram([(word, -float(number)) for number, word in enumerate(words)], 0)
    elif kind == "BPE":
        model = models.BPE(ids, [], unk_token=words[0])
    else:
        model = getattr(models, kind)(ids, unk_token=words[0])
    made = tokenizers.Tokenizer(model)
    made.add_special_tokens([tokenizers.AddedToken(word, special=True) for word in words[:3]])
    assert made.get_vocab() == ids
    made.save(str(folder / "tokenizer.json"))
    return folder


def by_hand(table: torch.Tensor, old: list[str], new: list[str], rows: int | None = None) -> torch.Tensor:
    mean = table.double().mean(0).to(table.dtype)
    made = mean.repeat(rows or len(new), *[1] * (table.ndim - 1)).reshape(rows or len(new), *table.shape[1:])
    for number, token in enumerate(new):
        if token in old:
            made[number] = table[old.index(token)]
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_tokenizers_of_the_library_are_read(kind: str, tmp_path: Path) -> None:
    path = tokenizer(tmp_path, OLD, kind) / "tokenizer.json"
    assert parse_vocabulary(path.read_text()) == {word: number for number, word in enumerate(OLD)}


@pytest.mark.parametrize("form", ["tokenizer.json", "added_tokens_decoder", "added_tokens.json"])
def test_added_tokens_are_read_as_transformers_reads_them(form: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    base = transformers.PreTrainedTokenizerFast.from_pretrained(tokenizer(tmp_path / "base", OLD), pad_token="<pad>")
    base.add_tokens(["zehn"])
    base.add_special_tokens({"mask_token": "<mask>"})
    folder = tmp_path / "saved"
    base.save_pretrained(folder)
    if form != "tokenizer.json":
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(OLD)}))
        (folder / "merges.txt").write_text("#version: 0.2\n")
        config: dict[str, Any] = {"tokenizer_class": "GPT2Tokenizer", **dict.fromkeys(SPECIAL, "<pad>")}
        added = {"zehn": len(OLD), "<mask>": len(OLD) + 1}
        if form == "added_tokens.json":
            (folder / form).write_text(json.dumps(added))
        else:
            config[form] = {str(number): {"content": token, "special": False} for token, number in added.items()}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    found = read_vocabulary(folder).ids
    assert (found["zehn"], found["<mask>"]) == (len(OLD), len(OLD) + 1)
    assert found == transformers.AutoTokenizer.from_pretrained(folder).get_vocab()


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("added_tokens.json", '{"zehn": 3}', "two tokens"),
        ("added_tokens.json", "[1]", "no vocabulary"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {"content": "zehn"}}}', "is not a row"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"30": {"content": ["a"]}}}', "is not a text"),
    ],
)
def test_added_tokens_that_cannot_be(name: str, text: str, told: str, tmp_path: Path) -> None:
    folder = tokenizer(tmp_path / "base", OLD)
    (folder / name).write_text(text)
    with pytest.raises(CkptError, match=told) as error:
        read_vocabulary(folder)
    assert name in error.value.message


MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {"num_hidden_layers": 1, "intermediate_size": 24}),
    "tied": ("LlamaForCausalLM", {"num_hidden_layers": 1, "intermediate_size": 24, "tie_word_embeddings": True}),
    "gpt2": ("GPT2LMHeadModel", {"n_layer": 1, "n_positions": 32}),
    "bert": ("BertForMaskedLM", {"num_hidden_layers": 1, "intermediate_size": 24, "max_position_embeddings": 32}),
}


@pytest.mark.parametrize("rows", [None, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_it_equals_resizing_and_copying_by_hand(
    name: str, dtype: torch.dtype, rows: int | None, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    kind, more = MODELS[name]
    shared = {"hidden_size": 16, "num_attention_heads": 4, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    model_class = getattr(transformers, kind)
    torch.manual_seed(0)
    config = model_class.config_class(vocab_size=15, **shared, **more)  # 13 tokens and two rows of padding
    model = model_class(config).to(dtype).eval()
    if name == "bert":
        torch.nn.init.normal_(model.cls.predictions.bias)
    model.save_pretrained(tmp_path / "in")
    tokenizer(tmp_path / "in", OLD)
    (tmp_path / "in" / "special_tokens_map.json").write_text("{}")
    tokenizer(tmp_path / "new", NEW, "Unigram")
    words = ["remap", str(tmp_path / "in"), "--tokenizer", str(tmp_path / "new"), "-o", str(tmp_path / "out"), "-q"]
    assert run([*words, *(() if rows is None else ("--vocab-rows", str(rows)))]) == 0

    count = rows or len(NEW)
    again, info = model_class.from_pretrained(tmp_path / "out", output_loading_info=True, dtype=dtype)
    assert not {key: list(value) for key, value in info.items() if value}
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.resize_token_embeddings(count, mean_resizing=False)
    state = model.state_dict()
    for key, value in before.items():
        if value.shape[:1] == (15,):
            state[key].copy_(by_hand(value, OLD, NEW, rows))
    found = again.state_dict()
    assert set(found) == set(state)
    assert all(torch.equal(found[key], state[key]) for key in state)
    ids = torch.arange(8).reshape(1, 8)
    with torch.no_grad():
        assert torch.equal(again.eval()(input_ids=ids).logits, model.eval()(input_ids=ids).logits)

    after = json.loads((tmp_path / "out" / "config.json").read_text())
    assert after["vocab_size"] == count
    assert (after["bos_token_id"], after["eos_token_id"]) == (1, 0) and after["pad_token_id"] == 0  # which it had not
    if (tmp_path / "in" / "generation_config.json").exists():
        assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == 0
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (tmp_path / "new" / "tokenizer.json").read_bytes()
    assert not (tmp_path / "out" / "special_tokens_map.json").exists()


def _input(folder: Path, table: torch.Tensor, words: list[str] = OLD, **others: torch.Tensor) -> Path:
    tokenizer(folder, words)
    save_file({"model.embed_tokens.weight": table, **others}, folder / "model.safetensors")
    return folder


def test_what_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _input(tmp_path / "in", torch.randn(13, 4))
    (tmp_path / "in" / "config.json").write_text('{"vocab_size": 13, "pad_token_id": 0, "eos_token_id": [2, 1]}')
    tokenizer(tmp_path / "new", NEW)
    words = ["remap", str(tmp_path / "in"), "--tokenizer", str(tmp_path / "new")]
    assert run([*words, "-o", str(tmp_path / "out")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    shared = len(set(OLD) & set(NEW))
    assert f"{shared} rows by token, {len(NEW) - shared} new: the mean" in said
    assert "pad_token_id is 0, and the new tokenizer has no such token" in said
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == {"vocab_size": len(NEW), "pad_token_id": 0, "eos_token_id": [0, 1]}
    assert run([*words, "--json"]) == 0
    assert "rows by token" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_a_cast_comes_after_the_mean(dtype: torch.dtype, tmp_path: Path) -> None:
    table = torch.randn(13, 4).to(dtype)
    _input(tmp_path / "in", table)
    tokenizer(tmp_path / "new", NEW)
    plan = ckptool.plan_remap(tmp_path / "in", [], dtype="bf16", tokenizers=(tmp_path / "in", tmp_path / "new"))
    plan.apply(tmp_path / "out.safetensors")
    found = load_file(tmp_path / "out.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(found, by_hand(table, OLD, NEW).bfloat16())


@pytest.mark.parametrize("layout", ["transposed", "sliced", "plain"])
def test_torch_files_and_views(layout: str, tmp_path: Path) -> None:
    whole = torch.randn(13, 8)
    table = {"transposed": whole.T.contiguous().T, "sliced": whole[:, ::2], "plain": whole}[layout]
    torch.save(
        {"lm_head.weight": table, "transformer.wte.weight": table, "lm_head.bias": whole[:, 0]}, tmp_path / "a.pth"
    )
    old, new = tokenizer(tmp_path / "old", OLD), tokenizer(tmp_path / "new", NEW)
    words = [
        "--tokenizer",
        str(new),
        "--old-tokenizer",
        str(old / "tokenizer.json"),
        "-o",
        str(tmp_path / "b.pth"),
        "-q",
    ]
    assert run(["remap", str(tmp_path / "a.pth"), *words]) == 0
    found = torch.load(tmp_path / "b.pth")
    assert torch.equal(found["transformer.wte.weight"], by_hand(table, OLD, NEW))
    assert torch.equal(found["lm_head.weight"], found["transformer.wte.weight"])
    assert found["lm_head.weight"].data_ptr() == found["transformer.wte.weight"].data_ptr()
    assert torch.equal(found["lm_head.bias"], by_hand(whole[:, 0], OLD, NEW))


def test_a_damaged_table_is_found(tmp_path: Path) -> None:
    torch.save({"wte.weight": torch.randn(13, 64)}, tmp_path / "a.pth")
    data = bytearray((tmp_path / "a.pth").read_bytes())
    at = ckptool.open(tmp_path / "a.pth")["wte.weight"].pieces[0].storage.offset
    data[at + 5] ^= 1
    (tmp_path / "a.pth").write_bytes(data)
    old, new = tokenizer(tmp_path / "old", OLD), tokenizer(tmp_path / "new", NEW)
    plan = ckptool.plan_remap(tmp_path / "a.pth", [], tokenizers=(old, new))
    with pytest.raises(CkptError, match="damaged"):
        plan.apply(tmp_path / "b.safetensors")


TEXTS: list[tuple[str, str, str]] = [
    ("tokenizer.json", '{"model": {"vocab": {"a": 0, "a": 1}}}', "twice"),
    ("tokenizer.json", '{"model": {"vocab": {"a": 0, "b": 0}}}', "two tokens"),
    ("tokenizer.json", '{"model": {"vocab": [["a", 0.5], ["a", 0.5]]}}', "two ids"),
    ("tokenizer.json", '{"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 1, "content": "a"}]}', "two ids"),
    ("tokenizer.json", '{"model": {"vocab": {"a": -1}}}', "is not a row"),
    ("tokenizer.json", '{"model": {"vocab": {"a": true}}}', "is not a row"),
    ("tokenizer.json", '{"model": {"vocab": {"a": 1.0}}}', "is not a row"),
    ("tokenizer.json", '{"model": {"vocab": {"a": 99999999999}}}', "is not a row"),
    ("tokenizer.json", '{"model": {"vocab": {}}}', "no tokens"),
    ("tokenizer.json", '{"model": {}}', "no vocabulary"),
    ("tokenizer.json", '{"model": {"vocab": [["a"]]}}', "[token, score]"),
    ("tokenizer.json", '{"model": {"vocab": {"a": 0}}, "added_tokens": ["b"]}', "added_tokens"),
    ("tokenizer.json", "[" * 100_000, "not JSON"),
    ("tokenizer.json", '{"model": NaN}', "not JSON"),
    ("vocab.json", "[1]", "no vocabulary"),
    ("vocab.txt", "a\nb\na\n", "two ids"),
]


@pytest.mark.parametrize(("name", "text", "told"), TEXTS)
def test_what_is_no_vocabulary_is_refused(name: str, text: str, told: str, tmp_path: Path) -> None:
    _input(tmp_path / "in", torch.randn(13, 4))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / name).write_text(text)
    with pytest.raises(CkptError) as caught:
        ckptool.plan_remap(tmp_path / "in", [], tokenizers=(tmp_path / "in", tmp_path / "new"))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "new", "options", "told"),
    [
        (12, NEW, (), "has 13 ids, and model.embed_tokens.weight has 12 rows"),
        (13, NEW, ("--vocab-rows", "5"), f"has {len(NEW)} ids, which 5 rows do not hold"),
        (13, ["x", "y", "z"], (), "no token in common"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_numbers(
    rows: int, new: list[str], options: tuple[str, ...], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _input(tmp_path / "in", torch.randn(rows, 4))
    tokenizer(tmp_path / "new", new)
    words = ["remap", str(tmp_path / "in"), "--tokenizer", str(tmp_path / "new"), *options]
    assert run([*words, "-o", str(tmp_path / "out")]) == 2
    assert told in " ".join(capsys.readouterr().err.split()) and not (tmp_path / "out").exists()


def test_other_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "a.safetensors")
    (tmp_path / "empty").mkdir()
    old = tokenizer(tmp_path / "old", OLD)
    for words, told in [
        (["--vocab-rows", "5", "-r", "w -> v"], "need the new tokenizer"),
        (["--tokenizer", str(old)], "no vocabulary in"),
        (["--tokenizer", str(tmp_path / "empty"), "--old-tokenizer", str(old)], "no vocabulary in"),
        (["--tokenizer", str(old), "--old-tokenizer", str(old)], "no embedding is among the keys"),
    ]:
        assert run(["remap", str(tmp_path / "a.safetensors"), *words]) == 2
        assert told in " ".join(capsys.readouterr().err.split())
    tables = {"a.embed_tokens.weight": torch.zeros(13, 2), "lm_head.weight": torch.zeros(14, 2)}
    save_file(tables, tmp_path / "b.safetensors")
    with pytest.raises(CkptError, match="different numbers of rows"):
        ckptool.plan_remap(tmp_path / "b.safetensors", [], tokenizers=(old, old))
    save_file({"a.embed_tokens.weight": torch.zeros(13, 2, dtype=torch.int8)}, tmp_path / "c.safetensors")
    with pytest.raises(CkptError, match="a mean of its rows is none"):
        ckptool.plan_remap(tmp_path / "c.safetensors", [], tokenizers=(old, old))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-1, 8), min_size=0, max_size=40),
    st.integers(1, 4),
    st.sampled_from(["float16", "float32", "float64"]),
)
def test_any_order_of_rows(taken: list[int], width: int, dtype: str) -> None:
    table = np.random.default_rng(0).standard_normal((9, width)).astype(dtype)
    op = TokenRows("", table.shape, TensorSpec("", dtype, (len(taken), width)), tuple(taken))
    mean = table.mean(axis=0, dtype=np.float64).astype(dtype)
    wanted = [mean if at < 0 else table[at] for at in taken]
    made = op.compute([table])
    assert made.dtype == table.dtype
    np.testing.assert_allclose(
        made, np.array(wanted, dtype).reshape(len(taken), width), rtol=1e-3 if dtype == "float16" else 1e-6, atol=1e-7
    )
    assert all((made[number] == table[at]).all() for number, at in enumerate(taken) if at >= 0)


def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    count, width = 30_000, 1024
    words = [f"w{number}" for number in range(count)]
    for name, order in (("in", words), ("new", [*words[::-1], "new"])):
        (tmp_path / name).mkdir()
        ids = {word: number for number, word in enumerate(order)}
        (tmp_path / name / "tokenizer.json").write_text(json.dumps({"model": {"vocab": ids}}))
    table = torch.randn(count, width).bfloat16()
    save_file({"model.embed_tokens.weight": table}, tmp_path / "in" / "model.safetensors")
    mean = table.double().mean(0).bfloat16()
    plan = ckptool.plan_remap(tmp_path / "in", [], tokenizers=(tmp_path / "in", tmp_path / "new"))
    tracemalloc.start()
    plan.apply(tmp_path / "out.safetensors")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    found = load_file(tmp_path / "out.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(found[:-1], table.flip(0)) and torch.equal(found[-1], mean)
    assert peak < 40_000_000 < table.nbytes


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["model", "vocab", "added_tokens", "id", "content", "a"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(_JSON)
def test_any_json_is_a_vocabulary_or_refused(value: Any) -> None:
    try:
        ids = parse_vocabulary(json.dumps(value))
    except CkptError:
        return
    assert ids and len(set(ids.values())) == len(ids) and all(type(number) is int for number in ids.values())
