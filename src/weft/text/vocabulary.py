"""Adding tokens to a tokenizer. Resizing a model's embedding to match is the model's business."""

from __future__ import annotations

import json
from collections.abc import Sequence

from weft.core.errors import TokenizerError
from weft.text.hf_format import added_token
from weft.text.tokenizer import Tokenizer


def add_tokens(tokenizer: Tokenizer, tokens: Sequence[str], *, special: bool = False) -> Tokenizer:
    """Return a tokenizer with more tokens; every old token keeps its id.

    New tokens get the next ids in order. A text that has none of them is encoded as before.

    Args:
        tokenizer: left as it is.
        tokens: texts matched as they stand, before any splitting into words.
        special: special tokens are matched only where a caller allows them, and are skipped in
            decoding.

    Raises:
        TokenizerError: a token is empty, given twice, or in the vocabulary already.
    """
    document = json.loads(tokenizer.to_json())
    next_id = tokenizer.vocab_size
    for index, token in enumerate(tokens):
        _check(tokenizer, token, tokens[:index])
        document["added_tokens"].append(added_token(next_id + index, token, special=special))
    return tokenizer.with_json(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _check(tokenizer: Tokenizer, token: str, earlier: Sequence[str]) -> None:
    existing = tokenizer.token_id(token) if token else None
    if not token:
        problem = "a new token is empty"
    elif token in earlier:
        problem = f"the new token {token!r} is given twice"
    elif existing is not None:
        problem = f"the token {token!r} is in the vocabulary already, with id {existing}"
    else:
        return
    raise TokenizerError(problem, fix="give each new token once, as non-empty text")
