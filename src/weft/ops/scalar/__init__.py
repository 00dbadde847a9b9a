"""The smallest worked example: automatic differentiation and a multilayer perceptron on scalars.

- ``tape.py``  ``Scalar``: a number that remembers how it was computed, and the backward pass.
- ``graph.py`` the recorded computation as a Graphviz drawing.
- ``mlp.py``   neurons, layers and a perceptron made of scalars, with a training loop.

Nothing else uses it; it is what every kernel's backward pass does, in a hundred lines without
torch.
"""
