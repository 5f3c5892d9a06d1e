"""Building blocks of the schema: the base of all sections, and the kinds of values they hold."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _integer(value: Any) -> Any:
    """Refuse `true` and `1.0` where a `Literal` of integers would take them for 1."""
    if type(value) is not int:
        raise ValueError("should be an integer")
    return value


Positive = Annotated[int, Field(gt=0)]
Side = Annotated[int, Field(gt=0, le=4096)]  # a typing error beyond would exhaust the memory
Bits = Annotated[int, Field(ge=2, le=8)]
Channels = Annotated[Literal[1, 3], BeforeValidator(_integer)]
Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
Portion = Annotated[float, Field(ge=0.0, lt=1.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]
Precision = Literal["auto", "float32", "bfloat16"]


class Section(BaseModel):
    """Base of all sections: immutable, unknown keys refused, values never converted.

    Strict: "64" is no number and `true` no 1; an integer is accepted where a real is expected.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
