"""Convert command-line arguments, without pydantic for those that stay text.

Typer converts every argument with pydantic, whose import takes 0.2 s of CPU.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer.core
from typer._coercion import RuntimeParam, TypeDescriptor, build_runtime_param

if TYPE_CHECKING:
    from typer._click import Context


@dataclass(frozen=True)
class LazyConversion(RuntimeParam):
    """Typer's conversion, created only for a value that does not have its option's type already."""

    descriptor: TypeDescriptor

    def _coerce_value(self, value: Any, param: Any, ctx: "Context") -> Any:
        if self.annotation in (str, int, float) and isinstance(value, self.annotation):
            return value
        if self.annotation == list[str] and all(isinstance(text, str) for text in value):
            return list(value)
        conversion = build_runtime_param(self.descriptor)
        return conversion._coerce_value(value, param=param, ctx=ctx)


def convert_lazily() -> None:
    """Make typer use LazyConversion for each option and argument."""
    typer.core.build_runtime_param = _lazy  # type: ignore[attr-defined]  # typer has no other hook


def _lazy(descriptor: TypeDescriptor) -> RuntimeParam:
    return LazyConversion(descriptor.parameter_info, descriptor.annotation, descriptor)
