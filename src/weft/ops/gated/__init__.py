"""The gated activation of SwiGLU: ``reference.py`` defines it, ``native.py`` fuses it in C."""
