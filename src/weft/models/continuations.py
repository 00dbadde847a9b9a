"""Hypotheses over a cache: what a search needs of a decoder, computing each token once.

B prompts, R rows (hypotheses), T tokens, S positions, D model width, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from weft.models import heads
from weft.models.decoder import Decoder
from weft.models.encoder_decoder import EncoderDecoder
from weft.nn.context import PagedBatch, StepContext
from weft.nn.kv_cache import KVCache
from weft.nn.memory import Memory
from weft.ops import PagedLayout


class Continuations:
    """Rows that share the cached tokens of their common beginnings.

    A row is a list of cache slots of one token each. Keeping, repeating or dropping a hypothesis
    copies its list, never its keys and values. Implements ``weft.models.search.NextTokens``.

    Args:
        model: A decoder, or an encoder-decoder with the ``memory`` of the sources.
        prompts: Tokens before the first new one; at least one each.
        max_tokens: New tokens of a hypothesis at most.
        num_beams: Rows per prompt at most.
        memory: What the prompts' sources became, in the order of the prompts.

    Attributes:
        hidden_TD: Hidden states of all tokens of the latest call.
    """

    hidden_TD: Tensor

    def __init__(
        self,
        model: Decoder | EncoderDecoder,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        num_beams: int = 1,
        memory: Memory | None = None,
    ) -> None:
        self._model = model
        self._decoder = model.decoder if isinstance(model, EncoderDecoder) else model
        self._memory = memory
        self._prompts = prompts
        num_rows = len(prompts) * num_beams
        self._cache = KVCache(
            self._decoder.spec,
            num_blocks=sum(map(len, prompts)) + num_rows * max_tokens,
            block_size=1,
            num_sequences=num_rows,
            dtype=self._decoder.dtype,
            device=self._decoder.device,
        )
        self._texts = list(range(len(prompts)))  # whose source is still in the memory
        self._num_slots = 0
        # Of each row: its prompt, its length, its slots (padded with 0), all on the CPU.
        self._owners = list(range(len(prompts)))
        self._lengths_R = torch.zeros(len(prompts), dtype=torch.int64)
        self._slots_RS = torch.zeros(len(prompts), 0, dtype=torch.int64)

    def start(self) -> Tensor:
        """Compute the prompts; returns the logits after each, [B, V]."""
        lengths = [len(prompt) for prompt in self._prompts]
        tokens_T = torch.tensor([token for prompt in self._prompts for token in prompt])
        hidden_TD = self._forward(tokens_T, lengths)
        last_B = torch.tensor(lengths).cumsum(0) - 1
        return heads.logits(self._decoder, hidden_TD[last_B.to(hidden_TD.device)])

    def advance(self, parents_R: Tensor, tokens_R: Tensor) -> Tensor:
        """Compute one more token of some rows; returns the logits after each, [R, V]."""
        rows_R = parents_R.cpu()
        self._owners = [self._owners[row] for row in rows_R.tolist()]
        self._lengths_R, self._slots_RS = self._lengths_R[rows_R], self._slots_RS[rows_R]
        self._keep_states(rows_R)
        if self._memory is not None:
            readers = Counter(self._owners)
            self._memory = self._memory.read_by([readers[prompt] for prompt in self._texts])
            self._texts = [prompt for prompt in self._texts if prompt in readers]
        hidden_RD = self._forward(tokens_R, [1] * len(self._owners))
        return heads.logits(self._decoder, hidden_RD)

    def _keep_states(self, rows_R: Tensor) -> None:
        """Move recurrent states, which have no slots, to the rows that continue them."""
        for layer in self._cache.states:
            for stored in layer.values():
                stored[: len(rows_R)] = stored[rows_R.to(stored.device)]

    def _forward(self, tokens_T: Tensor, lengths: list[int]) -> Tensor:
        tokens_T = tokens_T.to(self._decoder.device)
        ctx = StepContext.paged(self._cache, self._append(lengths), memory=self._memory)
        if isinstance(self._model, EncoderDecoder):
            self.hidden_TD = self._model.decode(tokens_T, ctx)
        else:
            self.hidden_TD = self._model(tokens_T, ctx)
        return self.hidden_TD

    def _append(self, lengths: list[int]) -> PagedBatch:
        """Give each row so many new slots and return the step that fills them."""
        new_R = torch.tensor(lengths)
        rows_T = torch.arange(len(lengths)).repeat_interleave(new_R)
        starts_R = new_R.cumsum(0) - new_R
        positions_T = self._lengths_R[rows_T] + torch.arange(len(rows_T)) - starts_R[rows_T]
        slots_T = torch.arange(self._num_slots, self._num_slots + len(rows_T))
        self._num_slots += len(rows_T)
        self._lengths_R = self._lengths_R + new_R
        wider = int(self._lengths_R.max()) - self._slots_RS.shape[1]
        self._slots_RS = torch.nn.functional.pad(self._slots_RS, (0, wider))
        self._slots_RS[rows_T, positions_T] = slots_T
        device = self._decoder.device
        layout = PagedLayout(
            query_lengths=tuple(lengths),
            context_lengths=tuple(self._lengths_R.tolist()),
            slots_BS=self._slots_RS.to(device),
            decode=max(lengths) == 1,
        )
        states_R = torch.arange(len(lengths)).to(device)
        return PagedBatch(positions_T.to(device), slots_T.to(device), layout, states_R)
