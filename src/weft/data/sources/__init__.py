"""Where documents come from.

A source is a name, a licence and an iterator of documents in an order that does not change:
``stdlib`` (the running Python's standard library, present on every machine), ``files`` (folders,
text, JSONL, Parquet). ``catalog.open_source`` picks one from a word or a path.
"""
