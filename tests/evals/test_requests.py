from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.evals.support import tokenizer
from weft.core.errors import DataError
from weft.evals.requests import LogLikelihood, split_request


def test_spaces_at_the_border_belong_to_the_continuation():
    tok = tokenizer()
    before = split_request(tok, "the sum ", "of the")
    after = split_request(tok, "the sum", " of the")
    assert before == after
    assert tok.decode(after.continuation) == " of the"


def test_a_token_across_the_border_counts_as_continuation():
    tok = tokenizer()
    whole = tok.encode("the")
    assert len(whole) == 1  # one token holds both halves
    request = split_request(tok, "t", "he")
    assert request.context == (tok.bos_id,)
    assert request.continuation == tuple(whole)


def test_empty_context_becomes_the_begin_token():
    request = split_request(tokenizer(), "", "the sum")
    assert request.context == (tokenizer().bos_id,)


@given(st.text("the sum of 12", max_size=12), st.text("the sum of 12", min_size=1, max_size=12))
def test_the_whole_is_never_tokenized_apart(context, continuation):
    tok = tokenizer()
    request = split_request(tok, context, continuation)
    whole = tuple(tok.encode(context + continuation))
    assert request.tokens in (whole, (tok.bos_id, *whole))
    # Every byte of the continuation is scored.
    assert tok.decode(request.continuation).endswith(continuation)


@pytest.mark.parametrize(("context", "continuation"), [((), (1,)), ((1,), ())])
def test_empty_parts_are_refused(context, continuation):
    with pytest.raises(DataError):
        LogLikelihood(context, continuation)


def test_empty_continuation_is_refused():
    with pytest.raises(DataError, match="continuation"):
        split_request(tokenizer(), "the", "")
