"""What all request bodies have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# What tensors can hold; JSON itself has no limit.
Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class Body(BaseModel):
    """A request body: no unknown field, no coercion."""

    model_config = ConfigDict(extra="forbid", strict=True)
