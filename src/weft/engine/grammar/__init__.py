"""Structured output: which tokens a grammar lets a sequence draw next.

=================  =========================================================================
``source.py``      a ``StructuredSpec`` in the grammar language of llguidance
``compiler.py``    ``GrammarCompiler``: grammars of one vocabulary, each compiled once
``state.py``       ``GrammarState``: where one sequence is in its grammar
``rows.py``        ``GrammarRows``: all live sequences, and the masks of one step
=================  =========================================================================

A token is let through exactly if some valid text begins with what has been drawn and that token;
nothing prefers one spelling of a text over another. Compiling takes milliseconds to seconds and
happens before a request is queued, on a thread of its own where there is an event loop; masks are
computed on the host after the forward pass was started. llguidance (Earley parser over a lexer of
derivatives, in Rust) does both without Python's lock; it is the optional extra ``grammar``.
"""
