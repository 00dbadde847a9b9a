"""Rotary positions: ``reference.py`` defines the turn, ``native.py`` does it in one pass in C."""
