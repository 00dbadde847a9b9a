"""What always holds between the calls of a scheduler, asserted by its `check`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from weft.sched.roster import Roster
from weft.sched.sequence import Phase, Sequence


def check_queues(roster: Roster) -> None:
    """Assert that every live sequence is in the one place its phase names, and in order."""
    waiting, running, held = roster.waiting, roster.running, roster.forks
    assert {s.request.id: s for s in (*waiting, *running, *held)} == roster.sequences
    assert len(waiting) + len(running) + len(held) == len(roster.sequences)
    assert all(s.phase is Phase.RUNNING for s in running)
    assert all(s.phase is Phase.WAITING for s in waiting)
    assert all(s.phase is Phase.HELD for s in held)
    assert len(running) <= roster.config.max_num_sequences
    for queue in (waiting, running):
        ranks = [sequence.rank for sequence in queue]
        assert ranks == sorted(ranks)


def check_progress(
    sequences: Iterable[Sequence], in_flight: Mapping[Sequence, int], block_size: int
) -> None:
    """Assert that positions, blocks and steps in flight of every sequence agree."""
    for sequence in sequences:
        assert sequence.num_in_flight == in_flight.get(sequence, 0)
        assert sequence.num_pending <= sequence.num_in_flight
        assert len(sequence.tokens) < sequence.max_length
        if sequence.phase is Phase.RUNNING:
            assert sequence.num_stale == 0
            assert sequence.num_computed < len(sequence.tokens)
            assert sequence.num_computed <= sequence.num_planned
            assert sequence.num_planned <= len(sequence.table.blocks) * block_size
            num_spare = len(sequence.table.blocks) * block_size - len(sequence.tokens)
            assert num_spare >= -1
            assert sequence.num_in_flight or num_spare < block_size, "guesses left blocks behind"
        else:
            assert sequence.num_computed == sequence.num_planned == 0
            assert sequence.num_stale == sequence.num_in_flight
            assert sequence.draft is None
            assert not sequence.table.blocks
