"""Floor 6: models on disk. A checkpoint is a Hugging Face directory; pickle is never loaded.

- ``hf.py``            ``load_model``, ``load_into`` (in place) and ``save_model``: ``config.json``,
  safetensors (one file or shards with an index), ``generation_config.json``, the tokenizer's files.
- ``encoders.py``, ``sentence.py``  encoders, encoder-decoders and the folders of
  sentence-transformers.
- ``speculator.py``    drafting heads (EAGLE, Medusa, block) in folders of their own.
- ``sources.py``       where an engine's weights come from, as often as wanted: a folder, or random
  numbers without any file.
- ``named.py``         named tensors from anywhere (a trainer) into a model's own tensors.
- ``transfer.py``      bytes from the files into the model's own tensors, in the files' order.
- ``sharded.py``       one rank's share of a folder, without reading the rest.
- ``stored_forms.py``  packed forms (FP8 in blocks, MXFP4) of a tensor, as data: names and decoder.
- ``memory.py``        memory for weights about to be read.
- ``safetensors.py``   opening, checking and writing safetensors with errors that name the file.

Which tensors a family has is no business of this package: see ``weft.models.families``.

Training state (optimizer, random state, data position) belongs to the trainer: see
``weft.train.checkpoint``, which stores the same safetensors with a manifest.
"""
