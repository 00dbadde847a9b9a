from __future__ import annotations

from hypothesis import settings

# Times depend on the machine and its load; what a test asserts does not.
settings.register_profile("weft", deadline=None)
settings.load_profile("weft")
