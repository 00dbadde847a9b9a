"""Floor 6: models on disk. A checkpoint is a Hugging Face directory; pickle is never loaded.

- ``hf.py``           ``load_model`` and ``save_model``: ``config.json``, safetensors (one file or
  shards with an index), ``generation_config.json`` and the tokenizer's files.
- ``safetensors.py``  opening, checking and writing safetensors with errors that name the file.

Training state (optimizer, random state, data position) belongs to the trainer: see
``weft.train.checkpoint``, which stores the same safetensors with a manifest.
"""
