"""weft: the whole LLM stack drawn from one model definition.

>>> import weft
>>> llm = weft.LLM.load("runs/quickstart/model")            # doctest: +SKIP
>>> print(llm.chat("Sort: 7 2 9 4").text)                # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from weft.engine.llm import LLM as LLM
    from weft.spec import ModelShape as ModelShape
    from weft.spec import ModelSpec as ModelSpec
    from weft.spec import SamplingParams as SamplingParams
    from weft.text.tokenizer import Tokenizer as Tokenizer

# Loaded on first use, so that `import weft` stays instant and never loads torch.
_PUBLIC = {
    "LLM": "weft.engine.llm",
    "ModelShape": "weft.spec",
    "ModelSpec": "weft.spec",
    "SamplingParams": "weft.spec",
    "Tokenizer": "weft.text.tokenizer",
}

__all__ = ["LLM", "ModelShape", "ModelSpec", "SamplingParams", "Tokenizer", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'weft' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
