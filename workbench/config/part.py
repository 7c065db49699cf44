"""Base of every config part: frozen, strict, with errors that name the nearest field."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from workbench.core import ConfigError, unknown_name


class Part(BaseModel):
    """A frozen group of settings; an unknown or ill-typed field raises `ConfigError` at once."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def __init__(self, **fields: Any):
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise _as_config_error(type(self).__name__, error) from None

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, fields: Any) -> Any:
        if isinstance(fields, dict):
            for name in fields:
                if name not in cls.model_fields:
                    problem, remedy = unknown_name("field", str(name), cls.model_fields)
                    raise ConfigError(f"{problem} in {cls.__name__}", remedy=remedy)
        return fields

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, validated again."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**{**fields, **changes})


def _as_config_error(owner: str, error: ValidationError) -> ConfigError:
    first = error.errors()[0]
    where = ".".join([owner, *(str(part) for part in first["loc"])])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    message = first["msg"].removeprefix("Value error, ")
    return ConfigError(
        f"{where} = {first['input']!r}: {message}{more}", remedy="correct the value of this field"
    )
