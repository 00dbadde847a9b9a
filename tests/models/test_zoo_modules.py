"""Every published model, built on the meta device, has its published number of parameters."""

from __future__ import annotations

import pytest

from weft.models.graph import build_on_meta
from weft.spec import zoo
from weft.spec.families import FAMILIES
from weft.spec.families.encoders import ENCODER_DECODERS, ENCODERS

SUPPORTED = {*FAMILIES, *ENCODERS, *ENCODER_DECODERS}
NAMES = [name for name in zoo.names() if zoo.config(name)["model_type"] in SUPPORTED]
# The first of each family runs by default; the counts of all are held to the same numbers there.
FIRST = {zoo.config(name)["model_type"]: name for name in reversed(NAMES)}.values()


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in FIRST else pytest.mark.slow) for n in NAMES]
)
def test_the_module_has_the_published_number_of_parameters(name: str) -> None:
    module = build_on_meta(zoo.spec(name))
    assert sum(parameter.numel() for parameter in module.parameters()) == zoo.parameters(name)
    # What a checkpoint would not fill must not be in memory that is not initialised.
    stored = set(module.state_dict())
    assert {name for name, _ in module.named_buffers()} <= stored
