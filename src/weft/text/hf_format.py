"""The Hugging Face files of a tokenizer: ``tokenizer.json`` and what stands beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weft.core.errors import InputFileError, TokenizerError
from weft.core.files import read_json, write_atomic, write_json
from weft.text.bpe import BPE
from weft.text.byte_level import PATTERN

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"


@dataclass(frozen=True)
class TokenizerFiles:
    """What a folder says about its tokenizer.

    Attributes:
        tokenizer_json: the text of ``tokenizer.json``.
        config: ``tokenizer_config.json``, completed from ``special_tokens_map.json``.
        chat_template: Jinja2 source, from whichever file has it.
        eos_token_ids: end tokens that ``generation_config.json`` names.
    """

    tokenizer_json: str
    config: dict[str, Any] = field(default_factory=dict)
    chat_template: str | None = None
    eos_token_ids: tuple[int, ...] = ()


def read_tokenizer(path: Path) -> TokenizerFiles:
    """Read a folder, or a ``tokenizer.json`` by itself.

    Raises:
        InputFileError: there is no ``tokenizer.json``, or a file beside it is not JSON.
    """
    path = Path(path)
    if path.is_file():
        return TokenizerFiles(_read_text(path))
    file = path / TOKENIZER_FILE
    if not file.is_file():
        reason = f"{str(path)!r} has no {TOKENIZER_FILE}"
        if not path.exists():
            reason = f"there is no tokenizer at {str(path)!r}"
        elif (path / "tokenizer.model").is_file():
            reason += "; it has a SentencePiece tokenizer.model, which cannot be read"
        raise InputFileError(
            reason, fix="give a folder with a tokenizer.json, or make one: weft tokenizer train"
        )
    config = {**_read_object(path / "special_tokens_map.json"), **_read_object(path / CONFIG_FILE)}
    in_config = config.pop("chat_template", None)
    eos = _read_object(path / "generation_config.json").get("eos_token_id")
    return TokenizerFiles(
        tokenizer_json=_read_text(file),
        config=config,
        chat_template=_read_template(path) or _default_template(in_config),
        eos_token_ids=(eos,) if isinstance(eos, int) else tuple(eos or ()),
    )


def write_tokenizer(folder: Path, files: TokenizerFiles) -> None:
    """Write a folder that transformers loads unchanged.

    Raises:
        ResourceError: the folder cannot be written.
    """
    folder = Path(folder)
    write_atomic(folder / TOKENIZER_FILE, files.tokenizer_json)
    # The class that needs nothing but tokenizer.json; a named one may rebuild parts of it.
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **files.config}
    write_json(folder / CONFIG_FILE, config)
    if files.chat_template is not None:
        write_atomic(folder / TEMPLATE_FILE, files.chat_template)


def token_text(value: Any) -> str | None:
    """Return the text of a token in ``tokenizer_config.json``: plain or an object."""
    text = value.get("content") if isinstance(value, Mapping) else value
    return text if isinstance(text, str) else None


def canonical(tokenizer_json: str) -> str:
    """Write ``tokenizer.json`` in one way, whatever its spacing and key order."""
    return json.dumps(json.loads(tokenizer_json), sort_keys=True, separators=(",", ":"))


def added_token(id: int, content: str, *, special: bool) -> dict[str, Any]:
    """Return an entry of ``added_tokens``; its text is matched as it stands."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": id, "content": content, **flags, "special": special}


def byte_level_json(model: BPE, special_tokens: Sequence[str]) -> str:
    """Return the ``tokenizer.json`` of a byte-level BPE model with this package's word rule."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    split = {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated"}
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(model.vocab[t], t, special=True) for t in special_tokens],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{**split, "invert": False}, {**byte_level, "use_regex": False}],
        },
        "post_processor": None,
        "decoder": {**byte_level, "use_regex": False},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": model.ignore_merges,
            "vocab": model.vocab,
            "merges": [list(pair) for pair in model.merges],
        },
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def read_bpe(tokenizer_json: str) -> BPE:
    """Return the BPE model of a ``tokenizer.json``, for study and for the reference encoder.

    Raises:
        TokenizerError: its model is of another kind.
    """
    model = json.loads(tokenizer_json)["model"]
    if model.get("type", "BPE") != "BPE":
        raise TokenizerError(
            f"the tokenizer's model is {model['type']}; the merges of a BPE model are needed",
            fix="use a byte-pair-encoding tokenizer",
        )
    # Older files write a merge as one text with a space.
    merges = (m.split(" ", 1) if isinstance(m, str) else m for m in model["merges"])
    return BPE(
        vocab=model["vocab"],
        merges=tuple((first, second) for first, second in merges),
        end_of_word=model.get("end_of_word_suffix") or "",
        ignore_merges=bool(model.get("ignore_merges")),
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TokenizerError(
            f"{path} is damaged: it is not UTF-8 text ({error.reason} at byte {error.start})",
            fix="copy the file again from its source",
        ) from error


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputFileError(
            f"{path} holds a {type(value).__name__}; a JSON object is needed",
            fix="copy the file again from its source",
        )
    return value


def _read_template(folder: Path) -> str | None:
    file = folder / TEMPLATE_FILE
    if file.is_file():
        return _read_text(file)
    return _default_template(_read_object(folder / "chat_template.json").get("chat_template"))


def _default_template(value: Any) -> str | None:
    """Return the template itself, or the one named ``default`` of several."""
    if isinstance(value, list):
        named = {entry.get("name"): entry.get("template") for entry in value}
        value = named.get("default")
    return value if isinstance(value, str) else None
