"""Values that keep quiet: secrets, prompts and arrays too long to read are not in their `repr`, so in no log."""

from __future__ import annotations

from typing import Any, ClassVar


class Discreet:
    """Stands before `Struct` among the bases of a class: `repr`, and what rich prints, leave out what it hides."""

    __slots__ = ()
    __struct_fields__: ClassVar[tuple[str, ...]]
    HIDDEN: ClassVar[tuple[str, ...]] = ()
    """Names of fields that are not shown; fields whose name begins with an underscore never are."""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        shown = [name for name in self.__struct_fields__ if name not in self.HIDDEN and not name.startswith("_")]
        return [(name, getattr(self, name)) for name in shown]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__qualname__}({fields})"
