"""Where guesses fit: behind the tokens that must be computed, and never at anybody's cost."""

from __future__ import annotations

from collections.abc import Iterable

from weft.sched.config import SchedulerConfig
from weft.sched.manager import KVManager
from weft.sched.plan import Draft
from weft.sched.sequence import Sequence


def num_guesses_left(running: Iterable[Sequence], max_tokens: int, *, others_wait: bool) -> int:
    """Return how many guesses a step of `max_tokens` may verify.

    Each output gets its token first; where prompts need the rest, guesses take half of it.
    """
    num_outputs = 0
    for sequence in running:
        if len(sequence.tokens) + sequence.num_pending - sequence.num_planned > 1:
            others_wait = True
        else:
            num_outputs += 1
    num_left = max_tokens - num_outputs
    return num_left // 2 if others_wait else num_left


def fit_draft(
    sequence: Sequence, num_left: int, num_running: int, kv: KVManager, config: SchedulerConfig
) -> Draft | None:
    """Take the draft of a sequence, cut to what the step, its length and the blocks leave.

    The sequence gets the blocks for it, but none that a running one may need for its next token.
    """
    draft, sequence.draft = sequence.draft, None
    assert draft is not None
    num_tokens, table = len(sequence.tokens), sequence.table
    num_guesses = min(
        len(draft.tokens), config.max_draft, num_left, sequence.max_length - num_tokens - 1
    )
    if num_guesses > len(table.blocks) * config.block_size - num_tokens:
        num_spare = max(kv.pool.num_free - num_running, 0)
        num_slots = (len(table.blocks) + num_spare) * config.block_size - num_tokens
        num_guesses = min(num_guesses, num_slots)
        grown = num_guesses <= 0 or kv.grow(table, num_tokens + num_guesses)
        assert grown, "free blocks were counted"
    if num_guesses <= 0:
        return None
    return draft if num_guesses == len(draft.tokens) else draft.head(num_guesses)
