"""How the small values that every call makes are declared. Owns that nobody changes one; refuses to check it later.

A frozen dataclass sets each field by a function call, and a call makes thirty such values: a tenth of its processor
time. A value declared here is frozen for the type checker, which the build runs over every line, and equal, hashable,
replaceable and slotted like any frozen dataclass. What is made once a lease or once a process stays a frozen dataclass.
"""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[_T]) -> type[_T]:
    """Declare a value: a slotted dataclass whose fields the type checker lets nobody set."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
