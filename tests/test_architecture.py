"""The house of the design, asserted: imports run one way, downwards, and a reader finds a thing by its name.

The checker reads source code alone, so it sees imports inside functions and under `TYPE_CHECKING` too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import dspyserve

ROOT = Path(dspyserve.__file__).parent
PACKAGE = "dspyserve"

FLOORS: Mapping[str, int] = {
    "asgi": 7,
    "apps": 7,
    "lean": 7,
    "admin": 6,
    "api": 6,
    "checks": 6,
    "management": 6,
    "signals": 6,
    "websocket": 6,
    "reviewing": 5,
    "runs": 5,
    "": 5,
    "execution": 4,
    "access": 3,
    "programs": 3,
    "tracing": 3,
    "models": 2,
    "conf": 1,
    "encoding": 1,
    "problems": 1,
    "secret_patterns": 1,
    "shortcuts": 1,
    "errors": 0,
    "events": 0,
    "migrations": 0,
}
"""How high each part stands; a part may import what stands lower. "" is `dspyserve/__init__.py`, the public names."""

STRANGERS = frozenset({("execution", "tracing"), ("execution", "access")})
"""Pairs that the floors alone would allow, and that must not know each other."""

DOORS = frozenset({"admin", "api", "asgi", "lean", "management", "websocket"})
DOOR_LIBRARIES = ("channels", "daphne", "django.http", "django.urls", "django.views", "ninja", "twisted")
"""What speaks HTTP or WebSocket: nothing below the doors may import it."""

VAGUE = frozenset({"base", "common", "helper", "helpers", "misc", "shared", "util", "utils"})
MAX_LINES = 400


@dataclass(frozen=True)
class Module:
    """One file of the package: its dotted name, the part of the house that it belongs to, and its source."""

    name: str
    is_package: bool
    source: str

    @property
    def part(self) -> str:
        """The first name below the package; empty for the package itself."""
        return self.name.partition(".")[2].partition(".")[0]


def modules(root: Path) -> list[Module]:
    """Every module below `root`, without the migrations, which Django writes."""
    found = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[0] == "migrations":
            continue
        is_package = parts[-1] == "__init__"
        name = ".".join((PACKAGE, *(parts[:-1] if is_package else parts)))
        found.append(Module(name, is_package, path.read_text()))
    return found


def imports(module: Module, names: frozenset[str]) -> Iterator[str]:
    """The dotted names that `module` imports; `names` are all modules, to tell a module from a name within one."""
    for node in ast.walk(ast.parse(module.source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(module, node)
            for alias in node.names:
                full = f"{origin}.{alias.name}"
                # `from django import http` imports a module, too, and of other packages nobody tells us which.
                is_module = full in names or (not origin.startswith(PACKAGE) and full in DOOR_LIBRARIES)
                yield full if is_module else origin


def _origin(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    base = module.name.split(".")
    base = base[: len(base) - node.level + module.is_package]
    return ".".join([*base, *([node.module] if node.module else [])])


def violations(found: list[Module]) -> list[str]:
    """What is wrong with the imports, a line each."""
    names = frozenset(module.name for module in found)
    faults = []
    for module in found:
        if module.part not in FLOORS:
            faults.append(f"{module.name}: {module.part} has no floor in the house")
            continue
        for imported in imports(module, names):
            if fault := _fault(module, imported):
                faults.append(f"{module.name}: {fault}")
    return faults


def _fault(module: Module, imported: str) -> str | None:
    if imported.partition(".")[0] == PACKAGE:
        part = imported.partition(".")[2].partition(".")[0]
        return None if _may_import(module.part, part) else f"{module.part or PACKAGE} may not import {imported}"
    is_library = any(imported == library or imported.startswith(f"{library}.") for library in DOOR_LIBRARIES)
    if is_library and module.part not in DOORS:
        return f"only a door may import {imported}"
    return None


def _may_import(part: str, other: str) -> bool:
    if part == other:
        return True
    return other in FLOORS and FLOORS[other] < FLOORS[part] and (part, other) not in STRANGERS


class TestTheHouse:
    """What holds of dspyserve."""

    def test_imports_run_downwards(self) -> None:
        assert violations(modules(ROOT)) == []

    def test_every_floor_is_read(self) -> None:
        parts = {module.part for module in modules(ROOT)}
        assert {"asgi", "api", "websocket", "admin", "management", "runs", "execution", "programs", "tracing"} <= parts

    def test_every_package_says_what_lives_there(self) -> None:
        silent = [m.name for m in modules(ROOT) if m.is_package and not ast.get_docstring(ast.parse(m.source))]
        assert silent == []

    def test_every_module_says_what_it_is_for(self) -> None:
        silent = [m.name for m in modules(ROOT) if not ast.get_docstring(ast.parse(m.source))]
        assert silent == []

    def test_no_module_has_a_vague_name(self) -> None:
        assert [m.name for m in modules(ROOT) if m.name.rpartition(".")[2].lstrip("_") in VAGUE] == []

    def test_no_file_is_too_long_to_be_read(self) -> None:
        assert [m.name for m in modules(ROOT) if len(m.source.splitlines()) > MAX_LINES] == []


class TestTheChecker:
    """A made-up house, with one fault at a time."""

    CLEAN: Mapping[str, str] = {
        "__init__.py": "from dspyserve.programs.registry import register",
        "asgi.py": "from dspyserve.api import urls\nfrom dspyserve import runs",
        "api/__init__.py": "",
        "api/urls.py": "import ninja\nfrom django.http import Http404\nfrom dspyserve import runs\nimport dspyserve",
        "websocket/__init__.py": "",
        "websocket/consumer.py": "from channels.consumer import AsyncConsumer\nfrom . import messages",
        "websocket/messages.py": "from dspyserve.errors import Error",
        "runs.py": "from dspyserve.execution.pool import Pool\nfrom dspyserve.tracing import writer",
        "execution/__init__.py": "",
        "execution/pool.py": "from dspyserve.programs.registry import register\nfrom dspyserve.events import Event",
        "programs/__init__.py": "",
        "programs/registry.py": "from dspyserve.models import Program",
        "tracing/__init__.py": "",
        "tracing/writer.py": "from ..models import Program",
        "models/__init__.py": "from dspyserve.conf import settings",
        "conf.py": "from dspyserve.errors import Error",
        "errors.py": "import logging",
        "events.py": "",
    }

    @pytest.mark.parametrize(
        ("path", "line"),
        [
            ("models/__init__.py", "from dspyserve.programs import registry"),
            ("models/__init__.py", "import dspyserve.programs.registry"),
            ("models/__init__.py", "from dspyserve import runs"),
            ("models/__init__.py", "from ..programs.registry import register"),
            ("models/__init__.py", "from .. import runs"),
            ("models/__init__.py", "import dspyserve"),
            ("models/__init__.py", "def later():\n    from dspyserve.programs import registry"),
            ("programs/registry.py", "from dspyserve.tracing import writer"),
            ("programs/registry.py", "from dspyserve.execution.pool import Pool"),
            ("execution/pool.py", "from dspyserve.tracing import writer"),
            ("tracing/writer.py", "from dspyserve.execution import pool"),
            ("execution/pool.py", "from dspyserve.runs import execute"),
            ("runs.py", "from dspyserve.api import urls"),
            ("runs.py", "from dspyserve.asgi import serve"),
            ("api/urls.py", "from dspyserve.websocket.consumer import Consumer"),
            ("websocket/consumer.py", "if TYPE_CHECKING:\n    from dspyserve.api import urls"),
            ("errors.py", "from dspyserve.conf import settings"),
            ("events.py", "from dspyserve.errors import Error"),
            ("runs.py", "from django.http import HttpResponse"),
            ("runs.py", "from django import http"),
            ("programs/registry.py", "import ninja"),
            ("execution/pool.py", "from channels.layers import get_channel_layer"),
            ("errors.py", "from daphne.server import Server"),
            ("attic/__init__.py", ""),
        ],
    )
    def test_it_finds_what_is_not_allowed(self, tmp_path: Path, path: str, line: str) -> None:
        build(tmp_path, {**self.CLEAN, path: f"{self.CLEAN.get(path, '')}\n{line}"})
        assert len(violations(modules(tmp_path))) == 1

    def test_it_leaves_a_clean_house_alone(self, tmp_path: Path) -> None:
        build(tmp_path, {**self.CLEAN, "migrations/0001_initial.py": "import ninja"})
        assert violations(modules(tmp_path)) == []


def build(root: Path, files: Mapping[str, str]) -> None:
    """Write `files` below `root`."""
    for name, source in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
