"""Speculation: guess several tokens cheaply, verify them in one step of the target.

Each step the runner asks a proposer what may follow, the scheduler puts the guesses behind the
sequence's next token, and the step that computes them draws from every row whose guesses hold
(``weft.engine.draw``). Guesses are a chain or a tree (``weft.sched.plan.Draft``).

=====================  =========================================================================
``config.py``          ``SpeculationConfig``: which proposer, how many guesses, how they are judged
``proposer.py``        ``Proposer``: what every way to guess implements
``speculator.py``      ``Speculator``: a proposer, counted and switched off where it does not pay
``build.py``           from the config and a model to a ``Speculator``
``ngram.py``           what followed the same few tokens before
``suffix.py``          what followed the longest repeated suffix, here or in past answers
``suffix_trie.py``     the index of all suffixes and how often each occurred
``network.py``         drafting with a network that has a cache of its own on the same blocks
``networks.py``        the networks: a small decoder, an EAGLE head, a prediction module
``drawing.py``         how such a network draws its guesses
``trails.py``          which tokens such a network has still to compute
``trailing.py``        what networks with trails share
``mtp.py``             multi-token prediction modules one behind the other
``medusa.py``          Medusa heads
``block.py``           a whole block of guesses in one pass, by filling masked places
``best_first.py``      the likeliest nodes of a tree of guesses
``lengths.py``         how many guesses of each sequence are worth verifying (DSpark)
``within_grammar.py``  guesses that a grammar refuses are not verified
``verify.py``          rejection sampling, chain and tree, vectorised
``reference.py``       the same in plain Python; tests hold both equal
``control.py``         measured speed-up; drafting stops below one and is tried again later
``counters.py``        drafts, guesses and those that held, by position
=====================  =========================================================================

With ``acceptance="same_draw"`` a row draws the very token that it would draw without speculation,
whatever was guessed, so tokens are identical with and without, greedy and sampled. With
``"rejection"`` only their distribution is the same.
"""
