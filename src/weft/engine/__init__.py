"""Floor 7: the inference engine. A plan goes in, tokens come out, on the very tensors that train.

One step, whoever drives it: the scheduler (``weft.sched``) writes a plan, the runner computes it,
the scheduler settles the result, the core turns what happened into text. There is no prefill and
no decode mode, only tokens to compute; so the same request gives the same tokens alone, batched,
chunked, with a warm cache or after a preemption, and the tests hold every pair equal.

====================  ========================================================================
``config.py``         ``EngineConfig`` and the memory arithmetic behind the number of KV blocks
``llm.py``            ``LLM``: load, generate, chat, stream, score; binds a live module, no copy
``score.py``          log-probabilities of given tokens through the packed training path
``prompt_logprobs``   the same of prompts, in the very steps that compute them
``async_engine.py``   ``AsyncEngine``: a worker thread for servers; health, drain, close
``async_embedder``    ``AsyncEmbedder``: an encoder behind a thread; texts of many in one batch
``delivery.py``       from the worker to coroutines: mailboxes and ``DeltaStream``
``core.py``           ``EngineCore``: scheduler, runner, cache and text of one engine
``runner.py``         ``ModelRunner``: plan to tokens; failures stay with their request
``batch.py``          plan to tensors, without a loop over tokens
``states.py``         which slot of the recurrent states each running sequence has
``table.py``          sampling state of every live sequence, as rows of one array
``grammar/``          structured output: which tokens a grammar lets a sequence draw
``sampling/``         the sampling chain, counter-based draws, log-probabilities
``stream.py``         tokens of one request to text: whole characters, stop texts held back
``outputs.py``        ``Delta``, ``Completion``, ``Usage``
``stats.py``          counters and latency histograms on the engine's clock
====================  ========================================================================

The engine takes its clock as an argument and holds no process-wide state: any number of engines
live in one process. Adding a sampling parameter touches ``spec/sampling.py``, ``table.py`` and one
function of ``sampling/pipeline.py``.
"""
