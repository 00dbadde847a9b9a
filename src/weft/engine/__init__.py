"""Floor 7: the inference engine. A plan goes in, tokens come out, on the very tensors that train.

One step, whoever drives it: the scheduler (``weft.sched``) writes a plan, the runner computes it,
the scheduler settles the result, the core turns what happened into text. There is no prefill and
no decode mode, only tokens to compute; so the same request gives the same tokens alone, batched,
chunked, with a warm cache or after a preemption, and the tests hold every pair equal.

====================  ========================================================================
``config.py``         ``EngineConfig``: sizes and limits
``memory.py``         what goes where, and the arithmetic behind the number of KV blocks
``llm.py``            ``LLM``: load, generate, chat, stream, score; binds a live module, no copy
``load.py``           from a folder to what an engine is built from; ``prompts.py`` one or several
``weights.py``        changes of the weights: named tensors in place, reloads, versions
``sleep.py``          lets go of the memory of weights and cache, and takes it back
``pause.py``          ``Gate``: whether steps are computed and requests taken; the ways to pause
``beam.py``           beam search: hypotheses are forks of live requests
``contrastive.py``    contrastive search, beside the engine on a cache of its own
``bandwidth.py``      how much of the memory's bandwidth decoding uses
``score.py``          log-probabilities of given tokens through the packed training path
``prompt_logprobs``   the same of prompts, in the very steps that compute them
``async_engine.py``   ``AsyncEngine``: a worker thread for servers; health, drain, close
``async_embedder``    ``AsyncEmbedder``: an encoder behind a thread; texts of many in one batch
``worker.py``         a thread that does what others ask between its steps
``delivery.py``       from the worker to coroutines: mailboxes and ``DeltaStream``
``core.py``           ``EngineCore``: scheduler, runner, cache and text of one engine
``parts.py``          the parts of an engine, built in the order in which they need each other
``pace.py``           how long steps take, measured, for chunks that keep an output's pace
``features.py``       which features do not go together; asked once, when an engine is built
``runner.py``         ``ModelRunner``: plan to tokens; failures stay with their request
``forward.py``        a step's items to hidden states, in one forward pass or several
``batch.py``          plan to tensors, without a loop over tokens
``draw.py``           hidden states to tokens; guesses that hold give several in one step
``trees.py``          the shape of a draft; ``step_view.py`` what a step tells who guesses next
``graphs.py``         decode steps replayed from recordings, by number of rows
``states.py``         which slot of the recurrent states each running sequence has, and snapshots
``tiers.py``          moves blocks between device, host memory and disk (``disk.py``: one file)
``table.py``          sampling state of every live sequence, as rows of one array
``adapters/``         low-rank adapters, row by row in one step: loading, paging, hooks
``grammar/``          structured output: which tokens a grammar lets a sequence draw
``sampling/``         the sampling chain, counter-based draws, log-probabilities
``speculation/``      guesses at several tokens, verified in one step
``stream.py``         tokens of one request to text: whole characters, stop texts held back
``outputs.py``        ``Delta``, ``Completion``, ``Usage``
``parallel/``         one engine on several processes: ranks share layers, or have some each
``stats.py``          counters and latency histograms on the engine's clock
====================  ========================================================================

The engine takes its clock as an argument and holds no process-wide state: any number of engines
live in one process. Adding a sampling parameter touches ``spec/sampling.py``, ``table.py`` and one
function of ``sampling/pipeline.py``.
"""
