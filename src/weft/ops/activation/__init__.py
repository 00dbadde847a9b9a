"""Activation functions, plain and gated.

- ``functions.py``  ``ACTIVATIONS``: name and function, torch's own where it has one.
- ``reference.py``  each formula written out in elementary operations.
- ``stable.py``     sigmoid, tanh and softplus whose bits do not depend on the rest of the tensor.
- ``gated.py``      ``gated_unit``: act(a) ⊙ b; GLU and its relatives are the choice of act.
"""
