"""Values whose `repr` leaves out secrets, prompts and long arrays, so that no log ever holds them."""

from __future__ import annotations

from typing import Any, ClassVar


class Discreet:
    """A base class to name before `Struct`: `repr` and rich leave out the fields that it hides."""

    __slots__ = ()
    __struct_fields__: ClassVar[tuple[str, ...]]
    HIDDEN: ClassVar[tuple[str, ...]] = ()
    """Names of fields that are not shown. Fields whose names begin with an underscore are never shown."""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        shown = [name for name in self.__struct_fields__ if name not in self.HIDDEN and not name.startswith("_")]
        return [(name, getattr(self, name)) for name in shown]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__qualname__}({fields})"
