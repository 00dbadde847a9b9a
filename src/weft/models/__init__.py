"""Floor 5: one ``Decoder`` for every family, built from a ``ModelSpec``.

- ``decoder.py``  ``Decoder.forward(tokens_T, ctx) -> hidden_TD``: embedding, blocks, final norm.
- ``heads.py``    what is done with the hidden states: logits, summed cross-entropy, log-probs.
  Heads are separate from the forward pass, so that pre-training, RL and sampling share one path.
- ``mtp.py``, ``mtp_loss.py``  multi-token prediction modules and their loss.
- ``eagle.py``, ``medusa.py``, ``block_draft.py``  heads that draft for a model; they are trained in
  ``weft.train.speculators``.
- ``encoder.py``, ``encoder_decoder.py``  the same blocks reading both ways, and a ``Decoder`` that
  attends to them; ``pooling.py`` and ``embed.py`` make vectors of texts.
- ``search.py``   greedy and beam search over anything that scores next tokens; ``continuations.py``
  lets them share a cache, ``translator.py`` puts a tokenizer around both.
- ``graph.py``    the module tree with the shapes that flow through it, on the meta device.
- ``init.py``     weight initialisation, a function of a seed.
- ``hf_keys.py``  declarative two-way maps between our parameter names and Hugging Face's; merged
  tensors (QKV, gate-up) are listed with their parts. ``families/`` holds one map per family; the
  matching ``config.json`` translation lives below, in ``weft.spec.families``.
- ``sharding.py``  which tensor is cut how among ranks, as data; ``sharding_rules.py`` says it per
  kind of layer in the words of ``cuts.py``. ``sharded.py`` makes one rank's modules of a plan;
  ``staged.py`` is the other way to spread a model, by layers.

No layer knows of sharding, adapters, quantization or a cache: they are applied from outside.
"""
