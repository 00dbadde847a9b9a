"""From raw text to a (tiny) language model in half a minute: corpus, tokenizer, shards, training.

python examples/tiny_pretrain.py --out runs/tiny --steps 30
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from weft.core.runs import RunDirectory
from weft.data.build import CorpusConfig, build_corpus
from weft.data.corpus import Corpus, tokenize_corpus
from weft.engine.llm import LLM
from weft.spec import ModelShape, SamplingParams
from weft.text.train import train_bpe
from weft.train.pretrain import PretrainConfig, run_pretrain


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/tiny"))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--source", default="stdlib-docstrings", help="or a folder or file")
    parser.add_argument("--max-bytes", type=int, default=1_000_000)
    options = parser.parse_args(arguments)

    build_corpus(
        CorpusConfig(sources=(options.source,), max_bytes=options.max_bytes), options.out / "corpus"
    )
    corpus = Corpus(options.out / "corpus")
    tokenizer = train_bpe(corpus.train_texts(), vocab_size=512)
    shards = tokenize_corpus(corpus, tokenizer, options.out / "shards")
    config = PretrainConfig(
        steps=options.steps,
        model=ModelShape(dim=64, num_layers=2, num_heads=2, num_kv_heads=1, context_length=128),
        sequence_length=64,
        tokens_per_step=1024,
        final_eval_tokens=4096,
        precision="fp32",
    )
    with RunDirectory(options.out).open(config) as events:
        result = run_pretrain(
            config, folder=options.out, tokenizer=tokenizer, events=events, **shards
        )
    print(f"{result.steps} steps, held-out bits per byte {result.metrics['bits_per_byte']:.2f}")

    llm = LLM.load(options.out / "model")
    print(llm.generate("Return the ", SamplingParams(max_tokens=24, seed=0))[0].text)


if __name__ == "__main__":
    main()
