"""Floor 6: small changes to a frozen model, applied from outside by name pattern.

- ``lora.py``         low-rank adaptation: inject, train, merge, remove; from and to an ``Adapter``.
- ``adapter.py``      ``Adapter``: low-rank pairs by layer name, apart from any model.
- ``peft.py``         adapter folders of Hugging Face PEFT, in and out.
- ``peft_config.py``  what ``adapter_config.json`` says, and what of it is refused.
- ``peft_names.py``   which rows of our merged layers a layer of theirs is.

No model class knows that adapters exist. On merged projections (QKV, gate-up) an adapter trained
here is one low-rank pair for the merged matrix. PEFT has one pair per projection: in its folders
such a pair is written once for each, with the same A, and its pairs are read as blocks of the
merged matrix; both ways the update is the same to rounding.
"""
