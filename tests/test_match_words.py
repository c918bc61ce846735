"""Models whose authors call the parts by words of their own language, by initials, or by words of their own."""

from __future__ import annotations

from itertools import product

import pytest

from ckptool.core.spec import TensorSpec
from ckptool.matching.match import match
from ckptool.matching.norms import norms_beside
from ckptool.matching.words import leaf_of, words_of

Rows = dict[str, tuple[int, ...]]

PARTS = {
    "model.embed_tokens.weight": (512, 24),
    "model.layers.#.self_attn.q_proj.weight": (24, 24),
    "model.layers.#.self_attn.k_proj.weight": (24, 24),
    "model.layers.#.self_attn.v_proj.weight": (24, 24),
    "model.layers.#.self_attn.o_proj.weight": (24, 24),
    "model.layers.#.mlp.gate_proj.weight": (40, 24),
    "model.layers.#.mlp.up_proj.weight": (40, 24),
    "model.layers.#.mlp.down_proj.weight": (24, 40),
    "model.layers.#.input_layernorm.weight": (24,),
    "model.layers.#.post_attention_layernorm.weight": (24,),
    "model.norm.weight": (24,),
}
NAMES = {
    "German": """Einbettung.Gewicht Schichten.#.Aufmerksamkeit.Abfrage.Gewicht
        Schichten.#.Aufmerksamkeit.Schlüssel.Gewicht Schichten.#.Aufmerksamkeit.Wert.Gewicht
        Schichten.#.Aufmerksamkeit.Ausgang.Gewicht Schichten.#.Netz.Tor.Gewicht
        Schichten.#.Netz.hinauf.Gewicht Schichten.#.Netz.hinab.Gewicht Schichten.#.Eingangsnorm.Gewicht
        Schichten.#.Norm_danach.Gewicht Schlussnorm.Gewicht""",
    "French": """plongement.poids couches.#.attention.requete.poids couches.#.attention.cle.poids
        couches.#.attention.valeur.poids couches.#.attention.sortie.poids couches.#.reseau.porte.poids
        couches.#.reseau.monte.poids couches.#.reseau.descend.poids couches.#.norme_avant.poids
        couches.#.norme_apres.poids norme_finale.poids""",
    "Polish": """osadzenie.waga warstwy.#.uwaga.zapytanie.waga warstwy.#.uwaga.klucz.waga
        warstwy.#.uwaga.wartość.waga warstwy.#.uwaga.wyjście.waga warstwy.#.sieć.bramka.waga
        warstwy.#.sieć.góra.waga warstwy.#.sieć.dół.waga warstwy.#.norma_przed.waga
        warstwy.#.norma_potem.waga norma_końcowa.waga""",
    "Turkish": """gomme.agirlik katman.#.dikkat.sorgu.agirlik katman.#.dikkat.anahtar.agirlik
        katman.#.dikkat.deger.agirlik katman.#.dikkat.cikis.agirlik katman.#.ag.kapi.agirlik
        katman.#.ag.yukari.agirlik katman.#.ag.asagi.agirlik katman.#.once_norm.agirlik
        katman.#.sonra_norm.agirlik son_norm.agirlik""",
    "Pinyin": """qianru.quanzhong ceng.#.zhuyili.chaxun.quanzhong ceng.#.zhuyili.jian.quanzhong
        ceng.#.zhuyili.zhi.quanzhong ceng.#.zhuyili.shuchu.quanzhong ceng.#.qiankui.menkong.quanzhong
        ceng.#.qiankui.shang.quanzhong ceng.#.qiankui.xia.quanzhong ceng.#.guiyi_qian.quanzhong
        ceng.#.guiyi_hou.quanzhong zuihou_guiyi.quanzhong""",
}


def specs(rows: Rows) -> dict[str, TensorSpec]:
    return {key: TensorSpec(key, "float32", shape) for key, shape in rows.items()}


def found(source: Rows, target: Rows) -> dict[str, tuple[str, ...]]:
    return {key: pair.sources for pair in match(specs(source), specs(target)).accepted() for key in pair.targets}


@pytest.mark.parametrize("language", NAMES)
def test_a_transformer_in_another_language(language: str) -> None:
    """Both are sorted by their names, so that only words tell q from k and one norm from the other."""
    names = dict(zip(PARTS, NAMES[language].split(), strict=True))
    right = {key.replace("#", str(n)): name.replace("#", str(n)) for key, name in names.items() for n in range(4)}
    theirs = {key: PARTS[part] for part in PARTS for n in range(4) for key in (part.replace("#", str(n)),)}
    ours = {right[key]: shape for key, shape in theirs.items()}
    made = found(dict(sorted(ours.items())), dict(sorted(theirs.items())))
    assert made == {key: (name,) for key, name in right.items()}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Schlüssel", "k"),
        ("schluessel", "k"),
        ("schlussel", "k"),
        ("Selbstaufmerksamkeitsnorm", "self attn norm"),
        ("norma_atención", "norm attn"),
        ("frage_schluessel_wert", "qkv"),
        ("crossattn", "cross attn"),
        ("EncDecAttention", "cross attn"),
        ("positional_embedding", "pos"),
        ("information", "information"),
        ("keyboard", "keyboard"),
    ],
)
def test_words_of_one_part(name: str, words: str) -> None:
    assert words_of(name) == tuple(words.split())


def test_roles_of_other_languages() -> None:
    """A role that the dictionary has needs no second tensor beside it."""
    assert leaf_of(("norm", "gewicht"), frozenset()).role == "weight"
    assert leaf_of(("norm", "viés"), frozenset()).role == "bias"


def test_norms_of_a_decoder() -> None:
    """Three norms are told where one of them is behind cross attention."""
    meant = norms_beside(["selbst", "kreuz", "norm_selbst", "norm_kreuz", "norm_schluss"])
    assert meant["norm_kreuz"] == ("cross", "attn", "norm")
    assert norms_beside(["attn", "norm1", "norm2", "norm3"]) == {}


@pytest.mark.parametrize("names", ["pre_att pre_ff", "pre1 pre2", "sa ff", "shift_attn shift_mlp", "one two"])
def test_norms_that_are_not_called_so(names: str) -> None:
    """A vector with a bias in a block is a norm; where one of their names is not known, nothing is said of any."""
    first, last = names.split()
    meant = norms_beside(["attn", "mlp", first, last], norms=[first, last])
    is_known = names in ("pre_att pre_ff", "pre1 pre2", "sa ff")
    assert meant == ({first: ("attn", "norm", "1/2"), last: ("mlp", "norm", "2/2")} if is_known else {})
    assert norms_beside(["attn", "mlp", first, last]) == {}


@pytest.mark.parametrize("names", ["pre_att pre_ff", "pre1 pre2"])
def test_two_norms_of_a_block_that_are_called_by_what_follows(names: str) -> None:
    right = {"in.weight": "embed.weight"}
    for at, (one, other) in product(range(3), zip(names.split(), ("norm1", "norm2"), strict=True)):
        right |= {f"b.{at}.{one}.{role}": f"blocks.{at}.{other}.{role}" for role in ("weight", "bias")}
    for at, (one, other) in product(range(3), (("att.qkv", "attn.qkv"), ("ff.0", "mlp.fc1"), ("ff.2", "mlp.fc2"))):
        right[f"b.{at}.{one}.weight"] = f"blocks.{at}.{other}.weight"
    sizes = {"qkv": (18, 6), "ff.0": (24, 6), "ff.2": (6, 24), "in": (90, 6)}
    shapes = {key: next((size for part, size in sizes.items() if f"{part}.w" in key), (6,)) for key in right}
    source = {right[key]: shape for key, shape in shapes.items()}
    made = found(dict(sorted(source.items())), dict(sorted(shapes.items())))
    assert made == {key: (name,) for key, name in right.items()}


def test_encoder_and_decoder_in_initials() -> None:
    """T5: an attention is deeper than its norm on one side only."""
    names = {"sa": "layer.0.SelfAttention", "ca": "layer.1.EncDecAttention", "ff": "layer.{}.DenseReluDense"}
    right = {"emb.w": "shared.weight"}
    for tower, parts in (("encoder", ("sa", "ff")), ("decoder", ("sa", "ca", "ff"))):
        for part, n in product(parts, range(3)):
            ours, theirs = f"{tower[0]}.b{n}.{part}", f"{tower}.block.{n}.{names[part].format(len(parts) - 1)}"
            roles = {"i": "wi", "o": "wo"} if part == "ff" else {role: role for role in "qkvo"}
            right |= {f"{ours}.{short}.w": f"{theirs}.{name}.weight" for short, name in roles.items()}
            right[f"{ours}.n.w"] = f"{theirs.rpartition('.')[0]}.layer_norm.weight"
        right[f"{tower[0]}.n.w"] = f"{tower}.final_layer_norm.weight"
    sizes = {"emb.w": (300, 8), "n.w": (8,), "i.w": (20, 8), "ff.o.w": (8, 20)}
    shapes = {key: next((size for end, size in sizes.items() if key.endswith(end)), (8, 8)) for key in right}
    target = {right[key]: shape for key, shape in shapes.items()}
    made = found(dict(sorted(shapes.items())), target)
    assert made == {right[key]: (key,) for key in shapes}


def test_what_is_learned_from_one_list_tells_in_another() -> None:
    """The second list's two norms are of one length; the first list's are not, and are called the same."""
    right = {"first.weight": "in.weight"}
    sizes = {"first.weight": (90, 6)}
    for (ours, theirs, lengths), n in product((("a", "p", (6, 12)), ("b", "r", (16, 16))), range(4)):
        right[f"{theirs}.{n}.conv.weight"] = f"{ours}.{n}.conv.weight"
        sizes[f"{theirs}.{n}.conv.weight"] = lengths
        for (here, there), length in zip((("norm_x", "norm_alpha"), ("norm_y", "norm_omega")), lengths, strict=True):
            for role in ("weight", "bias"):
                right[f"{theirs}.{n}.{there}.{role}"] = f"{ours}.{n}.{here}.{role}"
                sizes[f"{theirs}.{n}.{there}.{role}"] = (length,)
    source = {name: sizes[key] for key, name in right.items()}
    made = found(dict(sorted(source.items())), dict(sorted(sizes.items())))
    assert made == {key: (name,) for key, name in right.items()}
