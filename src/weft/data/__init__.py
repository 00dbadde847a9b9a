"""Floor 3: from raw text to batches, with NumPy alone.

Two halves meet in one folder of token shards.

*Building* (once per corpus): ``sources`` yields ``document.Document``s from the standard library,
folders, text, JSONL or Parquet; ``clean`` and ``dedup`` drop some of them and remember why;
``build`` writes the rest as a corpus (``train.jsonl``, ``heldout.jsonl``, ``manifest.json``);
``corpus`` reads it back and tokenizes it into ``shards``.

*Loading* (every step): ``shards`` maps tokens into memory, ``pack`` decides what shares a
sequence, ``mix`` which source comes next, ``loader`` draws batch i as a pure function of
(seed, i) through the constant-memory shuffle of ``permutation``; ``examples`` does the same for
fine-tuning examples with loss masks. All of them return the one ``batch.Batch``: flat tokens,
shifted labels, document lengths. There is no iterator state to save: a checkpoint stores the
next index, and a changed number of workers reads the very same data.

``parallel`` reads sentence pairs and draws batches of similar length.

``prefetch`` makes batches ahead; ``instruct`` and ``preference`` read and write conversation
formats; ``tasks`` generates problems whose answers can be checked. ``staging`` makes a set of
files appear at once.
"""
