"""What all request bodies have in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

# What tensors can hold; JSON itself has no limit.
Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class Body(BaseModel):
    """A request body: no unknown field, no coercion."""

    model_config = ConfigDict(extra="forbid", strict=True)


class RequestBody(Body):
    """What the bodies of all work have: a model, and nulls that mean nothing was said."""

    model: str | None = None
    # Who asks: the tenant where the engine serves tenants fairly; it never influences the output.
    user: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: item for name, item in value.items() if item is not None}
