"""The text part of a Gemma 3 that also sees, read from its file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.parity.cases.dense import GEMMA
from weft.checkpoint.hf import load_model, save_model
from weft.core.errors import UnsupportedError
from weft.models import heads
from weft.nn.context import StepContext

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity


def test_the_text_part_gives_the_logits_of_the_whole_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.Gemma3Config(
        text_config={**GEMMA, "vocab_size": 97, "sliding_window": 5},
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 8,
        },
        mm_tokens_per_image=4,
        image_token_index=95,
        boi_token_index=94,
        eoi_token_index=93,
    )
    config._attn_implementation = "eager"
    theirs = transformers.Gemma3ForConditionalGeneration(config).eval().float()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs", dtype=torch.float32)
    tokens_T = torch.randint(90, (20,), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        types = torch.zeros(1, 20, dtype=torch.int64)
        expected = theirs(tokens_T[None], token_type_ids=types).logits[0]
        actual = heads.logits(ours, ours(tokens_T, StepContext.packed([20])))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(UnsupportedError, match="gemma3_text"):
        save_model(ours, tmp_path / "ours")
