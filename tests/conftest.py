"""What holds for every test."""

from __future__ import annotations

import torch
from hypothesis import settings

# A busy machine may be slow; only wrong answers fail.
settings.register_profile("weft", deadline=None)
settings.load_profile("weft")
# Test processes share the cores; threads that wait for each other would make them crawl.
torch.set_num_threads(1)
