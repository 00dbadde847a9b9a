"""Floor 2: text to tokens and back, and conversations to text. No torch.

Learning a vocabulary
    ``bpe`` is the byte-pair core (train and encode), ``byte_level`` its alphabet of bytes and the
    rule that cuts words, ``train`` joins them into a tokenizer. ``wordpiece`` and ``baselines``
    (words, characters, plain bytes) are there to compare with.

Using one
    ``tokenizer.Tokenizer`` runs any Hugging Face ``tokenizer.json``; ``hf_format`` reads and writes
    the files, ``token_bytes`` knows the bytes of each token, ``vocabulary`` adds tokens.

Conversations
    ``chat`` renders templates in a sandbox, ``render`` gives tokens and the loss mask, ``guard``
    keeps special tokens that users write from becoming special.

Streams
    ``detokenize`` emits whole characters only, ``stop`` holds back what may become a stop string.

Our own encoder and trainer are the readable reference; production encoding is the ``tokenizers``
library's, and tests hold the two equal.
"""
