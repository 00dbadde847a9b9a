"""Load a model and use it: complete, chat, sample several answers, stream, score.

python examples/generate_with_llm.py runs/quickstart/model
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from weft import LLM, SamplingParams


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=Path("runs/quickstart/model"))
    options = parser.parse_args(arguments)
    llm = LLM.load(options.model)

    print("chat       ", llm.chat("What is 17 + 25?", SamplingParams(max_tokens=8)).text)

    prompts = ["def read_file(", '    """Return ']
    for completion in llm.generate(prompts, SamplingParams(max_tokens=16, temperature=0.0)):
        print("greedy     ", repr(completion.text), completion.finish_reason)

    # The draw depends on (seed, sample, position) only, so the same call gives the same samples.
    sampling = SamplingParams(max_tokens=8, temperature=0.9, seed=7)
    samples = llm.generate("import ", sampling, num_samples=3)
    again = llm.generate(["class ", "import "], sampling, num_samples=3)[3:]
    assert [sample.tokens for sample in samples] == [sample.tokens for sample in again]
    print("samples    ", [sample.text for sample in samples])

    print("stream     ", end=" ")
    for delta in llm.stream("for line in ", SamplingParams(max_tokens=16, seed=0)):
        print(delta.text, end="", flush=True)
    print()

    # The trainer's path and the engine's path agree on how likely the drawn tokens are.
    best = llm.generate("import ", SamplingParams(max_tokens=8, temperature=1.0, seed=1))[0]
    scored = llm.score([best.prompt + best.tokens])[0][-len(best.tokens) :]
    difference = max(abs(a - b) for a, b in zip(scored, best.logprobs, strict=True))
    print(f"probability {math.exp(sum(best.logprobs)):.2e}, trainer and engine: {difference:.1e}")


if __name__ == "__main__":
    main()
