"""``GrammarCompiler``: structures to grammars over one vocabulary, each compiled once.

Safe to call from any thread. Whoever asks first for a grammar compiles it; whoever asks for the
same one meanwhile waits for that. A grammar that was compiled is a prototype: sequences get copies.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import Any

from weft.core.errors import RequestError
from weft.core.optional import require
from weft.engine.grammar.source import to_source
from weft.engine.grammar.state import GrammarError, GrammarState
from weft.spec.structured import PARAM, StructuredSpec
from weft.text.tokenizer import Tokenizer

# A prototype takes from some kilobytes to a few megabytes.
NUM_CACHED = 128
MAX_REASON = 500


class GrammarCompiler:
    """Grammars of one tokenizer, the most recently used ones kept.

    Args:
        tokenizer: Gives each token its bytes; special tokens match no text. Where a text's first
            space is the tokenizer's, not the text's, a structure that begins with one loses it.
        vocab_size: Rows of the model's head; those without a token are never drawn.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._lock = threading.Lock()
        # One compiler serves one tokenizer, so its fingerprint need not be part of the key.
        self._prototypes: OrderedDict[StructuredSpec, Future[Any]] = OrderedDict()
        self._vocabulary_lock = threading.Lock()
        self._vocabulary: Any = None
        self.num_compiled = 0

    def start(self, spec: StructuredSpec) -> GrammarState:
        """Return a state at the beginning of a structure; compiles it if need be.

        Raises:
            RequestError: the structure is wrong, or says what cannot be enforced.
            MissingExtraError: llguidance is not installed.
        """
        return GrammarState(self._prototype(spec).deep_copy(), self._vocab_size)

    def _prototype(self, spec: StructuredSpec) -> Any:
        with self._lock:
            future = self._prototypes.get(spec)
            is_first = future is None
            if future is None:
                future = self._prototypes[spec] = Future()
                if len(self._prototypes) > NUM_CACHED:
                    self._prototypes.popitem(last=False)
            else:
                self._prototypes.move_to_end(spec)
        if is_first:
            self._fulfil(future, spec)
        return future.result()

    def _fulfil(self, future: Future[Any], spec: StructuredSpec) -> None:
        try:
            future.set_result(self._compile(spec))
        except BaseException as error:
            with self._lock:
                self._prototypes.pop(spec, None)
            future.set_exception(error)

    def _compile(self, spec: StructuredSpec) -> Any:
        llguidance = require("llguidance", extra="grammar")
        try:
            source = to_source(spec, llguidance, self._special_ids())
        except ValueError as error:
            raise _refused(str(error)) from error
        limits = llguidance.LLParserLimits(verbose_errors=False)
        matcher = llguidance.LLMatcher(self._tokens(llguidance), source, log_level=0, limits=limits)
        if matcher.is_error():
            raise _refused(matcher.get_error())
        try:
            GrammarState(matcher.deep_copy(), self._vocab_size).mask(())
        except GrammarError as error:
            raise _refused(error.message) from error
        with self._lock:
            self.num_compiled += 1
        return matcher

    def _special_ids(self) -> dict[str, int]:
        """Return the ids of the special tokens by their texts."""
        texts = ((id, self._tokenizer.special_text(id)) for id in range(self._vocab_size))
        return {text: id for id, text in texts if text}

    def _tokens(self, llguidance: Any) -> Any:
        """Return llguidance's form of the vocabulary, built at the first use."""
        with self._vocabulary_lock:
            if self._vocabulary is None:
                tokens = _Vocabulary(self._tokenizer, self._vocab_size)
                wrapper = llguidance.TokenizerWrapper(tokens)
                self._vocabulary = llguidance.LLTokenizer(wrapper, n_vocab=len(tokens.tokens))
            return self._vocabulary


class _Vocabulary:
    """What llguidance reads of a tokenizer; the names are llguidance's.

    Its end token is one the model does not have. The model's own end tokens match no text, so no
    grammar contains them; who may end, and with which token, is for ``GrammarState`` to say.
    """

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self.eos_token_id = vocab_size
        self.tokens = [_bytes_of(tokenizer, id) for id in range(vocab_size)] + [b"<end>"]
        self.special_token_ids = [
            *(id for id in range(vocab_size) if tokenizer.special_text(id) is not None),
            vocab_size,
        ]
        self._encode = tokenizer.encode

    def __call__(self, text: str | bytes) -> list[int]:
        return self._encode(text if isinstance(text, str) else text.decode("utf-8", "replace"))


def _bytes_of(tokenizer: Tokenizer, id: int) -> bytes:
    special = tokenizer.special_text(id)
    return tokenizer.token_bytes(id) if special is None else special.encode()


def _refused(reason: str) -> RequestError:
    return RequestError(
        f"the structure cannot be enforced: {_first(reason)}",
        fix="correct it, or leave out what is not supported",
        param=PARAM,
    )


def _first(reason: str) -> str:
    """Return as much of a reason as helps; a parser's may quote a whole grammar."""
    reason = reason.strip()
    return reason if len(reason) <= MAX_REASON else reason[:MAX_REASON] + " ..."
