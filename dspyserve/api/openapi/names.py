"""Names of components: readable, and never the same for two things."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

_DEFS: Final = "#/$defs/"
_COMPONENTS: Final = "#/components/schemas/"


def prefixes(programs: Iterable[str]) -> dict[str, str]:
    """A prefix for each program: `sort-mail` gives `SortMail`, unless another program gives the same."""
    names = list(programs)
    pascal = {name: "".join(part[:1].upper() + part[1:] for part in re.split(r"[-_]", name)) for name in names}
    taken = list(pascal.values())
    return {name: pascal[name] if taken.count(pascal[name]) == 1 else f"{name}." for name in names}


class Schemas:
    """The schemas of a document, by name."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        self.by_name: dict[str, Any] = dict(known)

    def add(self, wanted: str, schema: Mapping[str, Any]) -> str:
        """Add `schema` under `wanted`, or a name like it where that is taken; its `$defs` become components too.

        Returns the name.
        """
        name, number = wanted, 2
        while name in self.by_name:
            name, number = f"{wanted}{number}", number + 1
        self.by_name[name] = {}
        inner = {key: self.add(f"{name}{_clean(key)}", {}) for key in schema.get("$defs", {})}
        for key, component in inner.items():
            self.by_name[component] = _referring(schema["$defs"][key], inner)
        own = {key: value for key, value in schema.items() if key != "$defs"}
        self.by_name[name] = _referring(own, inner)
        return name


def _clean(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def _referring(schema: Any, inner: Mapping[str, str]) -> Any:
    """`schema` with references to components in place of those to `$defs`."""
    if isinstance(schema, list):
        return [_referring(item, inner) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    copied = {key: _referring(value, inner) for key, value in schema.items()}
    target = copied.get("$ref")
    if isinstance(target, str) and target.startswith(_DEFS):
        copied["$ref"] = _COMPONENTS + inner[target.removeprefix(_DEFS)]
    if isinstance(mapping := copied.get("mapping"), dict) and "propertyName" in copied:
        copied["mapping"] = {
            key: _COMPONENTS + inner[value.removeprefix(_DEFS)] if str(value).startswith(_DEFS) else value
            for key, value in mapping.items()
        }
    return copied
