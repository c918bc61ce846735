from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from recipe_harness import remap, run, specs

from ckptool.core.errors import UsageError
from ckptool.fits.args import Fit
from ckptool.recipes.expand import expand
from ckptool.recipes.inputs import json_lookup, resolve_vars, source_file_captures
from ckptool.recipes.reading import parse_rule
from ckptool.recipes.recipe import Recipe, builtin_recipes, combine, load_recipe, recipe_of


def load_text(text: str) -> Recipe:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "recipe.toml"
        path.write_text(text)
        return load_recipe(path)


def test_a_toml_recipe() -> None:
    recipe = load_text("""
ckptool = 1
source.select = "auto"
source.files."rank{r}" = "consolidated.{r}.pth"
vars.h = 32
vars.kv = "params.json:n_kv_heads"
rules = '''
?module.encoder_q.      ->          # a MoCo file; a torchvision file passes through
---
{k**} -> base.{k**}
'''
init."classifier.weight" = "normal(0.001)"
tie = [["a", "b"]]
freeze = ["base.*", "bottleneck.bias"]
expect.missing = ["base.fc.*"]
expect.coverage = 0.99
output.dtype = "bf16"
output.max_shard = "5GB"
""")
    assert [len(stage.rules) for stage in recipe.stages] == [1, 1]
    assert str(recipe.rules[0].name) == "recipe.toml rule 1"
    assert recipe.source_files == (("rank{r}", "consolidated.{r}.pth"),)
    assert recipe.vars == {"h": 32, "kv": "params.json:n_kv_heads"}
    assert recipe.init == (("classifier.weight", "normal(0.001)"),)
    assert recipe.freeze == ("base.*", "bottleneck.bias")
    assert recipe.expect.coverage == 0.99
    assert (recipe.output_dtype, recipe.output_max_shard, recipe.source_select) == ("bf16", "5GB", "auto")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("rule = 'a -> b'", 'no key "rule"', "rules"),
        ("[vars]\nh = 1\nrules = 'a -> b'\nunmatched = 'keep'", "rules", None),
        ("expects.missing = []", 'no key "expects"', "expect"),
        ("ckptool = 2", "version 2", "version 1"),
        ("unmatched = 'keeep'", "keeep", "drop"),
        ("rules = 3", "another type", None),
        ("freeze = 'fc.*'", "another type", None),
        ("tie = ['a']", "list of texts", None),
        ("rules = '''\nx\n'''", "no ->", None),
        ("rules = ", "not TOML", None),
    ],
)
def test_what_is_wrong_with_a_recipe_is_said(text: str, message: str, hint: str | None) -> None:
    if text.startswith("[vars]"):
        assert load_text(text).stages == ()  # the header swallowed the rules: they are vars now, and no numbers
        with pytest.raises(UsageError, match=r"vars.rules = .* neither a number nor FILE:NAME"):
            resolve_vars(load_text(text), lambda file, path: 0)
        return
    with pytest.raises(UsageError) as info:
        load_text(text)
    assert message in info.value.message
    assert hint is None or hint in (info.value.hint or "")


def test_recipes_by_name_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text("rules = '.gamma -> .weight'\nvars.a = 1\n")
    recipe = recipe_of(["strip-wrappers", "a. -> b.", "c. -> d.", str(path), "e. -> f."])
    assert [[str(rule.name) for rule in stage.rules] for stage in recipe.stages][1:] == [
        ["rule 1", "rule 2"], ["my.toml rule 1"], ["rule 3"],
    ]  # fmt: skip
    assert recipe.vars == {"a": 1}
    with pytest.raises(UsageError) as info:
        recipe_of(["strip-wrapers"])
    assert info.value.hint == "did you mean strip-wrappers?"


def test_every_built_in_recipe_loads_and_says_what_it_is_for() -> None:
    assert len(builtin_recipes()) >= 18
    for name in builtin_recipes():
        recipe = load_recipe(name)
        assert recipe.rules
        assert recipe.about.endswith(".")


def test_rules_print_as_they_are_read() -> None:
    for name in builtin_recipes():
        for rule in load_recipe(name).rules:
            assert parse_rule(rule.text, rule.name) == rule


def test_vars_beside_the_input(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"text": {"heads": 12}, "name": "x"}))
    lookup = json_lookup(tmp_path)
    recipe = load_text('vars.h = "config.json:text.heads"\nvars.two = 2\nrules = "a -> b"')
    assert resolve_vars(recipe, lookup) == {"h": 12, "two": 2}
    assert resolve_vars(recipe, lookup, {"h": 8}) == {"h": 8, "two": 2}
    for text, message in (
        ("config.json:text.head", 'config.json has no "text.head"'),
        ("params.json:n", "params.json cannot be read beside the input"),
        ("config.json:name", "vars.h is not a number"),
        ("heads", "neither a number nor FILE:NAME"),
    ):
        with pytest.raises(UsageError, match=message):
            resolve_vars(load_text(f'vars.h = "{text}"\nrules = "a -> b"'), lookup)


def test_files_of_one_checkpoint(tmp_path: Path) -> None:
    recipe = load_recipe("llama-meta-to-hf")
    with pytest.raises(UsageError, match="no file fits"):
        source_file_captures(recipe, tmp_path)
    for rank in range(11):
        (tmp_path / f"consolidated.{rank:02}.pth").touch()
    (tmp_path / "params.json").touch()
    found = source_file_captures(recipe, tmp_path)
    assert [prefix for prefix, _ in found] == [f"rank{rank}" for rank in range(11)]
    assert found[10][1].name == "consolidated.10.pth"
    (tmp_path / "consolidated.03.pth").unlink()
    with pytest.raises(UsageError, match="are missing"):
        source_file_captures(recipe, tmp_path)


def test_init_and_tie() -> None:
    recipe = load_text("""
rules = "a -> b"
init."head.weight" = "normal(0.01)"
init."head.bias" = "zeros"
init."other.*" = "copy:b"
init."kept.*" = "keep"
tie = [["b", "tied"]]
""")
    source = specs([("a", (3,))])
    target = specs([("b", (3,)), ("head.weight", (4, 3)), ("head.bias", (4,)), ("other.w", (3,)), ("kept.w", (2,))])
    found = expand(recipe, source, targets=target)
    assert not found.problems
    made = run(found, {"a": np.arange(3, dtype="f4")})
    assert list(made) == ["b", "head.weight", "head.bias", "other.w", "tied"]
    assert made["other.w"].tolist() == [0, 1, 2]
    assert not made["head.bias"].any()
    assert found.steps[-1].tied_to == "b"
    apart = expand(recipe, specs([("a", (3,)), ("tied", (3,))]))
    assert apart.problems[0].message == "tie: tied has a tensor of its own beside b"


def test_combining() -> None:
    one = load_text('rules = "a -> b"\nunmatched = "drop"\noutput.dtype = "bf16"')
    two = load_text('rules = "b -> c"\noutput.dtype = "f16"')
    both = combine([one, two])
    assert [stage.unmatched for stage in both.stages] == ["drop", "keep"]
    assert both.output_dtype == "f16"


LORA = """
vars.alpha = "adapter_config.json:lora_alpha"
vars.r = "adapter_config.json:r"
rules = '''
base_model.model.{m**}.base_layer.weight, base_model.model.{m**}.lora_A.default.weight, base_model.model.{m**}.lora_B.default.weight -> {m**}.weight | = $1 + (alpha / r) * $3 @ $2 | bf16
?base_model.model.{m**}.base_layer.bias -> {m**}.bias
base_model.model. ->
'''
"""  # noqa: E501

DEIT = """
rules = '''
pos_embed               -> pos_embed               | fit grid(prefix=1, mode='bicubic', antialias=True)
patch_embed.proj.weight -> patch_embed.proj.weight | fit channels
head.{p*}               -> head.{p*}               | fit rows(fill='keep')
'''
"""


def test_a_lora_adapter_is_merged_and_cast(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 16, "r": 4}')
    recipe = load_text(LORA)
    numbers = resolve_vars(recipe, json_lookup(tmp_path))
    random = np.random.default_rng(0)
    front = "base_model.model.model.q_proj"
    arrays = {
        f"{front}.base_layer.weight": random.standard_normal((6, 5)).astype("f4"),
        f"{front}.base_layer.bias": random.standard_normal(6).astype("f4"),
        f"{front}.lora_A.default.weight": random.standard_normal((4, 5)).astype("f4"),
        f"{front}.lora_B.default.weight": random.standard_normal((6, 4)).astype("f4"),
        "base_model.model.model.norm.weight": random.standard_normal(5).astype("f4"),
    }
    made = remap(recipe, arrays, vars=numbers)
    assert list(made) == ["model.q_proj.weight", "model.q_proj.bias", "model.norm.weight"]
    base, _, a, b, _ = arrays.values()
    exact = base.astype("f8") + 4.0 * (b.astype("f8") @ a.astype("f8"))
    assert np.abs(made["model.q_proj.weight"].astype("f8") - exact).max() <= np.abs(exact).max() * 2**-8
    assert made["model.q_proj.weight"].dtype.name == "bfloat16"


def test_fits_of_a_deit_recipe_wait_for_a_target() -> None:
    source = specs([("pos_embed", (1, 197, 8)), ("patch_embed.proj.weight", (8, 3, 4, 4)), ("head.weight", (10, 8))])
    recipe = load_text(DEIT)
    assert [rule.steps[0] for rule in recipe.rules] == [
        Fit("grid", "prefix=1, mode='bicubic', antialias=True"), Fit("channels"), Fit("rows", "fill='keep'"),
    ]  # fmt: skip
    assert len(expand(recipe, source).problems) == 3
