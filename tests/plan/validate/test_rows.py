from __future__ import annotations

import pytest

from weft.core.errors import DataError, InputFileError
from weft.plan.validate.architecture import parse_architecture
from weft.plan.validate.rows import GOLDEN_COLUMNS, Row, read_rows
from weft.spec import AttentionSpec, LearnedPositions, MLASpec, MLPSpec, MoESpec


def test_a_file_without_a_column_names_it(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("id,category\nG1,x\n")
    with pytest.raises(InputFileError, match="no column item, inputs"):
        read_rows(path, GOLDEN_COLUMNS)
    path.write_text("id\n")
    with pytest.raises(InputFileError, match="no rows"):
        read_rows(path, ("id",))
    with pytest.raises(InputFileError, match="cannot be read"):
        read_rows(tmp_path / "absent.csv", ("id",))


def test_numbers_say_where_they_are_missing():
    row = Row(12, {"tp": "8", "pp": "", "dp": "many"})
    assert row.integer("tp") == 8
    assert row.integer("pp", 1) == 1
    with pytest.raises(DataError, match="line 12: dp is 'many'"):
        row.number("dp")


def test_partial_rows_are_not_complete():
    assert Row(2, {"config_complete": "yes (recipe)"}).is_complete
    assert not Row(2, {"config_complete": "partial (mbs)"}).is_complete


def test_a_grouped_query_model():
    spec = parse_architecture("L80 h8192 a64 kv8 f28672 v128256 swiglu")
    layer = spec.layers[0]
    assert (spec.num_layers, spec.dim, spec.vocab_size) == (80, 8192, 128_256)
    assert isinstance(layer.mixer, AttentionSpec)
    assert (layer.mixer.num_kv_heads, layer.mixer.head_dim) == (8, 128)
    assert layer.ffn == MLPSpec(28672)
    assert not spec.tie_embeddings


def test_a_latent_mixture_with_dense_layers_first():
    text = (
        "L61(3 dense) h7168 MLA a128 qlr1536 kvlr512 rope64 nope128 v128 f18432 E256 k8 shared1 "
        "mf2048 v129280 mtp1"
    )
    spec = parse_architecture(text)
    assert isinstance(spec.layers[2].ffn, MLPSpec)
    assert isinstance(spec.layers[3].ffn, MoESpec)
    assert isinstance(spec.layers[0].mixer, MLASpec)
    assert spec.layers[0].mixer.value_head_dim == 128
    assert (spec.vocab_size, spec.num_mtp_layers) == (129_280, 1)


def test_words_of_older_models():
    spec = parse_architecture("L12 h768 a12 v250k gelu tied bias learned1024 (GPT)")
    assert spec.vocab_size == 250_880
    assert spec.tie_embeddings
    assert spec.positions == LearnedPositions(1024)
    assert spec.layers[0].ffn == MLPSpec(3072, gated=False, bias=True)


def test_every_second_layer_may_have_a_window():
    spec = parse_architecture("L4 h2880 a64 kv8 d64 SWA128 alt E128 k4 mf2880 v201088")
    mixers = [layer.mixer for layer in spec.layers]
    windows = [mixer.window for mixer in mixers if isinstance(mixer, AttentionSpec)]
    assert windows == [128, None, 128, None]


@pytest.mark.parametrize(
    ("text", "said"), [("L2 h64 a4 v100 wobble", "'wobble'"), ("L2 h64 v100", "no 'a'")]
)
def test_a_word_nobody_knows_is_named(text, said):
    with pytest.raises(DataError, match=said):
        parse_architecture(text)
