"""`scripts/rooms`: which package imports which, drawn as layers; import cycles; number and length of files.

A room is a package inside `node` or `protocol`, or a module beside these packages. A layer (`floor`) holds rooms that
import only rooms of lower layers; rooms that import each other in a cycle share a layer.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median

import click

ROOT = Path(__file__).resolve().parents[2]
SHORT_LINES = 40


def room_of(module: str) -> str:
    """`node.engine.runner` -> `node.engine`."""
    return ".".join(module.split(".")[:2])


def imported_by(file: Path, known: set[str]) -> set[str]:
    """Modules of the tree that a file imports, for any purpose."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & known
            found |= submodules or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & known


def imports_of_rooms(root: Path, package: str) -> dict[str, set[str]]:
    """The rooms of a package, each with the rooms that it imports."""
    files = {".".join(path.relative_to(root).with_suffix("").parts): path for path in (root / package).rglob("*.py")}
    modules = {name.removesuffix(".__init__"): path for name, path in files.items()}
    edges: dict[str, set[str]] = {room_of(name): set() for name in modules if name != package}
    for name, path in modules.items():
        if name != package:
            rooms = {room_of(other) for other in imported_by(path, set(modules)) if other != package}
            edges[room_of(name)] |= rooms - {room_of(name)}
    return edges


def circles(edges: Mapping[str, Iterable[str]]) -> list[set[str]]:
    """Import cycles: sets of rooms that can reach each other."""

    def reached(room: str) -> set[str]:
        seen: set[str] = set()
        todo = [room]
        while todo:
            for other in edges[todo.pop()]:
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        return seen

    reach = {room: reached(room) for room in edges}
    groups = {frozenset({room, *(other for other in reach[room] if room in reach[other])}) for room in edges}
    return [set(group) for group in groups if len(group) > 1]


def floors(edges: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The layers, the lowest first."""
    together = {room: frozenset(group) for group in circles(edges) for room in group}
    level: dict[str, int] = {}

    def of(room: str) -> int:
        if room not in level:
            group = together.get(room, frozenset({room}))
            below = {other for member in group for other in edges[member]} - group
            height = 1 + max((of(other) for other in below), default=-1)
            level.update(dict.fromkeys(group, height))
        return level[room]

    by_floor: dict[int, list[str]] = defaultdict(list)
    for room in sorted(edges):
        by_floor[of(room)].append(room)
    return [by_floor[height] for height in sorted(by_floor)]


@click.command()
@click.argument("root", type=click.Path(exists=True, file_okay=False, path_type=Path), default=ROOT)
def main(root: Path) -> None:
    """Print the packages of the tree at ROOT in layers, with import cycles and the length of files."""
    for package in ("node", "protocol"):
        edges = imports_of_rooms(root, package)
        print(f"{package}: {len(edges)} rooms, {sum(map(len, edges.values()))} imports between them")
        for height, rooms in reversed(list(enumerate(floors(edges)))):
            names = (room.removeprefix(f"{package}.") for room in rooms)
            print(f"  {height:2d}  {'  '.join(names)}")
        for circle in circles(edges):
            print(f"  cycle: {', '.join(sorted(circle))}")
    paths = [path for name in ("node", "protocol", "tui") for path in (root / name).rglob("*.py")]
    lines = [len(path.read_text().splitlines()) for path in paths]
    short = sum(count < SHORT_LINES for count in lines)
    print(f"{len(lines)} files, median {median(lines):.0f} lines, longest {max(lines)}, {short} below {SHORT_LINES}")


if __name__ == "__main__":
    main(prog_name="scripts/rooms")
