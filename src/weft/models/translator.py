"""Texts of one language to texts of another, with a trained model and its tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import torch

from weft.core.errors import ConfigError, TokenizerError
from weft.data.pack import length_groups
from weft.data.parallel import DecoderOnlyCollate, EncoderDecoderCollate
from weft.models.continuations import Continuations
from weft.models.decoder import Decoder
from weft.models.encoder_decoder import EncoderDecoder
from weft.models.search import BeamConfig, Hypothesis, beam_search, greedy_search
from weft.text.tokenizer import Tokenizer
from weft.text.train import END_OF_TEXT, PAD, train_bpe

SEPARATOR = "<|translate|>"
"""Between source and target where a decoder reads both."""


class Translator:
    """Translates with an encoder-decoder, or with a decoder that reads source and separator.

    Args:
        model: Trained by ``weft.train.translation``, or any T5.
        tokenizer: Its tokenizer.
        extra_tokens: A translation has at most twice as many tokens as its source and these.

    Raises:
        TokenizerError: the tokenizer has no end token, or no separator for a decoder.
    """

    def __init__(
        self, model: EncoderDecoder | Decoder, tokenizer: Tokenizer, *, extra_tokens: int = 10
    ) -> None:
        tokenizer.check_model(model.spec.vocab_size)
        self.model, self.tokenizer = model, tokenizer
        self._extra_tokens = extra_tokens
        if not self.end_ids:
            raise TokenizerError(f"{tokenizer.name} has no end token; translations could not end")

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens that end a translation."""
        model = self.model
        decoder = model.decoder if isinstance(model, EncoderDecoder) else model
        return decoder.spec.eos_ids or self.tokenizer.eos_ids

    @cached_property
    def collate(self) -> EncoderDecoderCollate | DecoderOnlyCollate:
        """How token pairs become what this model is trained on."""
        if isinstance(self.model, EncoderDecoder):
            return EncoderDecoderCollate(self.model.spec.start_id, self.end_ids[0])
        separator = self.tokenizer.token_id(SEPARATOR)
        if separator is None:
            raise TokenizerError(
                f"{self.tokenizer.name} has no token {SEPARATOR!r}",
                fix="use a model that `weft translate train` made",
            )
        return DecoderOnlyCollate(separator, self.end_ids[0])

    def translate(
        self,
        texts: Sequence[str],
        beam: BeamConfig | None = None,
        *,
        tokens_per_batch: int = 1024,
    ) -> list[str]:
        """Return the best translation of each text; without ``beam`` by greedy search.

        Texts are computed in the order of their lengths, about ``tokens_per_batch`` source tokens
        at a time.
        """
        tokens = self.tokenizer.encode_batch([text.strip() for text in texts])
        found: list[str] = [""] * len(texts)
        for rows in length_groups([len(ids) for ids in tokens], tokens_per_batch):
            hypotheses = self.search([tokens[row] for row in rows], beam)
            for row, (best, *_) in zip(rows, hypotheses, strict=True):
                found[row] = self.tokenizer.decode(best.tokens).strip()
        return found

    @torch.inference_mode()
    def search(
        self, sources: Sequence[Sequence[int]], beam: BeamConfig | None = None
    ) -> list[list[Hypothesis]]:
        """Return the hypotheses of each source, best first; one where ``beam`` is none."""
        limits = [2 * len(source) + self._extra_tokens for source in sources]
        num_beams = 1 if beam is None else beam.num_beams
        continuations = self._continuations(sources, max(limits), num_beams)
        if beam is None:
            return [[best] for best in greedy_search(continuations, limits, self.end_ids)]
        return beam_search(continuations, limits, self.end_ids, beam)

    def _continuations(
        self, sources: Sequence[Sequence[int]], max_tokens: int, num_beams: int
    ) -> Continuations:
        model, collate, memory = self.model, self.collate, None
        if isinstance(collate, EncoderDecoderCollate):
            assert isinstance(model, EncoderDecoder)
            read = [collate.source(source) for source in sources]
            flat_S = torch.tensor([token for source in read for token in source])
            memory = model.encode(flat_S.to(model.device), [len(source) for source in read])
            prompts = [[collate.start_id] for _ in sources]
        else:
            prompts = [collate.prompt(source) for source in sources]
        return Continuations(
            model, prompts, max_tokens=max_tokens, num_beams=num_beams, memory=memory
        )


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train one vocabulary for both languages, with a separator between them.

    Raises:
        ConfigError: ``vocab_size`` is too small.
        DataError: the texts are empty.
    """
    if vocab_size < 300:
        raise ConfigError(
            f"vocab_size is {vocab_size}; bytes and special tokens alone are 259",
            fix="use at least 300, for example 8000",
        )
    return train_bpe(texts, vocab_size, special_tokens=(END_OF_TEXT, SEPARATOR, PAD))
