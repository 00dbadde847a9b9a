"""What the scheduler, the runner and the front end say to each other.

One step is: the scheduler writes a `StepPlan`, the runner computes it and answers with a
`StepResult`, the scheduler settles the result into one `SequenceUpdate` per request that moved.
There is no prefill and no decode here: a sequence has tokens, some of them have keys and values
in the cache, and an item computes the next few. Chunked prefill, a resume after preemption and
a plain decode step are the same item with different numbers, and so is speculation: an item may
carry guesses at what follows its tokens, and the runner answers with as many tokens as held.

`StepItem`, `Sampled` and `SequenceUpdate` are named tuples because several hundred of each are
made every step and a frozen dataclass costs three times as much to make.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from weft.spec.request import FinishReason
from weft.spec.sampling import SamplingParams


@dataclass(frozen=True)
class NewSequence:
    """A sequence the runner has not seen; sent once, with the step that first computes it.

    The runner keeps the token history (prompt, then every token it sampled) until the id
    appears in `StepPlan.finished`. A preempted sequence is not sent again: its items simply
    start at a lower position.

    Attributes:
        id: Names the sequence in plans and results; never used twice by one scheduler.
        request_id: The caller's name for it, for logs and traces.
        prompt: Token ids.
        sampling: How to draw.
        sequence: Index among the samples of one prompt; part of the random stream.
        seed: The request's seed, or the one the scheduler drew for it.
        stop_token_ids: Every token that ends this sequence (the model's own unless `ignore_eos`,
            then the request's), to be masked while fewer than `min_tokens` were drawn.
        adapter: Key of the adapter it runs with; empty for the model as it is.
    """

    id: int
    request_id: str
    prompt: tuple[int, ...]
    sampling: SamplingParams
    sequence: int
    seed: int
    stop_token_ids: tuple[int, ...]
    adapter: str = ""


# Stands for the token that the sequence draws in the step before, which is not settled yet.
PENDING = -1


class Draft(NamedTuple):
    """Guesses at the tokens that follow, to be verified in one step: a chain or a tree.

    Guess i is computed at slot `start + len(item.tokens) + i` of its sequence, whatever its depth;
    its position is that of the token it follows plus one. Parents come before their children, so
    any leading part of a draft is a draft.

    Attributes:
        tokens: Guessed token ids.
        parents: For each the index of the guess it follows, -1 for the item's last token; empty
            for a chain.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...] = ()

    def head(self, num_tokens: int) -> Draft:
        """Return the first `num_tokens` guesses."""
        return Draft(self.tokens[:num_tokens], self.parents[:num_tokens])


class StepItem(NamedTuple):
    """Compute `tokens` of one sequence at positions `start` .. `start + len(tokens) - 1`.

    Attributes:
        id: The sequence.
        tokens: Token ids to compute; at least one. `PENDING` stands for the token that the
            sequence draws in the step before, where steps overlap.
        start: Position of the first; everything before it is in the cache.
        blocks: The block table, covering positions 0 .. `start + len(tokens) - 1` or more. Read
            it afresh each step: an entry may be replaced by another block of equal content.
        sample: Draw the next token from the last position's logits. False while more known
            tokens follow (a prompt still being chunked).
        draft: Guesses at what is drawn; only where `sample` is true. `blocks` has room for them.
    """

    id: int
    tokens: tuple[int, ...]
    start: int
    blocks: tuple[int, ...]
    sample: bool
    draft: Draft | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens this item computes, guesses included."""
        return len(self.tokens) + (0 if self.draft is None else len(self.draft.tokens))


class BlockTransfers(NamedTuple):
    """Moves of whole blocks between tiers of the KV cache, as (from, to) numbers.

    Executed before anything is computed, in this order, so what one kind writes a later one may
    read. No place is the target of two moves.

    Attributes:
        spills: From the host tier to disk.
        stores: From the device to the host tier.
        fetches: From disk to the host tier.
        loads: From the host tier to the device.
        copies: Within the device (copy on write).
    """

    spills: tuple[tuple[int, int], ...] = ()
    stores: tuple[tuple[int, int], ...] = ()
    fetches: tuple[tuple[int, int], ...] = ()
    loads: tuple[tuple[int, int], ...] = ()
    copies: tuple[tuple[int, int], ...] = ()


class StateTransfers(NamedTuple):
    """Moves between the recurrent states of running sequences and the slots of snapshots.

    Attributes:
        restores: (snapshot slot, sequence id): executed before the step.
        saves: (sequence id, snapshot slot): executed behind it.
    """

    restores: tuple[tuple[int, int], ...] = ()
    saves: tuple[tuple[int, int], ...] = ()


_NO_BLOCKS, _NO_STATES = BlockTransfers(), StateTransfers()


@dataclass(frozen=True)
class StepPlan:
    """One step of work.

    Attributes:
        step: Counts from 0.
        items: What to compute, single-token items first; each sequence at most once.
        new: Sequences that appear in `items` for the first time.
        finished: Ids the runner may forget; never in `items` of this or a later plan.
        preempted: Ids that gave their blocks back since the last plan. They start again from
            position 0 or behind a cached prefix, in this plan at the earliest, so the runner may
            drop all but their tokens before it computes anything.
        blocks: Moves of blocks between tiers, before the step.
        states: Moves of recurrent states, before and after the step.
    """

    step: int
    items: tuple[StepItem, ...] = ()
    new: tuple[NewSequence, ...] = ()
    finished: tuple[int, ...] = ()
    preempted: tuple[int, ...] = ()
    blocks: BlockTransfers = _NO_BLOCKS
    states: StateTransfers = _NO_STATES

    @property
    def num_tokens(self) -> int:
        """Tokens this step computes, guesses included."""
        return sum(item.num_tokens for item in self.items)


class Sampled(NamedTuple):
    """One drawn token.

    Attributes:
        token: Its id.
        logprob: Natural logarithm of its probability after all processing of the logits.
        top: The most likely alternatives as (token, logprob), most likely first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class StepResult:
    """What the runner hands back: tokens for each item with `sample`, or an error.

    Attributes:
        tokens: By sequence id, in order: the guesses that held, then one token more. The keys and
            values of guesses that held are in their positions' slots, also of a tree's branch.
        errors: By sequence id, in words for the caller; ends that sequence and no other.
        drafts: By sequence id, guesses at what follows `tokens`; the scheduler may cut them.
        lost: By sequence id, why blocks it was to load could not be read; it computes them again.
        disk_error: Why the disk tier is not used any more; none while it works.
    """

    tokens: dict[int, tuple[Sampled, ...]]
    errors: dict[int, str] = field(default_factory=dict)
    drafts: dict[int, Draft] = field(default_factory=dict)
    lost: dict[int, str] = field(default_factory=dict)
    disk_error: str | None = None


class SequenceUpdate(NamedTuple):
    """News of one request: one token, or its end. A step that draws several gives several.

    Attributes:
        request_id: Whose.
        token: The token drawn; None when the update only ends the request.
        logprob: Of that token.
        top: Its most likely alternatives.
        finish_reason: Set in the last update of a request.
        num_cached_tokens: Prompt tokens that were found in the prefix cache.
        error: In words, with `FinishReason.ERROR`.
    """

    request_id: str
    token: int | None = None
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()
    finish_reason: FinishReason | None = None
    num_cached_tokens: int = 0
    error: str | None = None
