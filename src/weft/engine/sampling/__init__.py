"""From logits to tokens: every step is a function over rows, every draw a function of its counter.

========================  ==================================================================
``rng.py``                Philox 4x32-10: the uniform of (seed, sequence, position)
``batch.py``              ``SamplingBatch``: the parameters of the rows that sample in one step
``pipeline.py``           ban, penalties, temperature, top-k, top-p, min-p, draw: vectorised
``logprobs.py``           log-probability of the drawn token and of the likeliest alternatives
``reference.py``          the same chain for one row in plain Python; tests hold both equal
========================  ==================================================================

The order is that of Hugging Face's logits processors: end-token ban, repetition penalty,
frequency and presence penalty, temperature, top-k, top-p, min-p, draw. vLLM differs in one
place only: it applies min-p before top-k and top-p. OpenAI's presence and frequency penalties
count generated tokens, not the prompt; the repetition penalty counts both.
"""
