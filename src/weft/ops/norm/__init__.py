"""Root-mean-square normalisation: ``reference.py`` defines it, ``native.py`` fuses it in C."""
