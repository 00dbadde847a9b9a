"""The short causal convolution of each channel that recurrent layers put before their state.

- ``reference.py``  token by token.
- ``sliding.py``    one weighted sum of shifted views per tap.
"""
