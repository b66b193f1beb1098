"""Draw the rooms of the core and what they import: ``python docs/make_house.py``.

Rooms are the packages and modules right below ``demoe``; a room stands one floor above the highest
one that it imports. Prints the numbers of rooms, floors and imports between rooms, and writes
docs/images/house.png.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "demoe"
PICTURE = Path(__file__).parent / "images" / "house.png"

Rooms = dict[str, set[str]]


def imports(file: Path) -> Iterator[str]:
    """Give the modules of ``demoe`` that a file imports, those for types alone left out."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    typing = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node not in typing and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)


def rooms_of(source: Path) -> Rooms:
    """Return the rooms and what each of them imports of the others."""
    found: Rooms = {}
    for file in source.rglob("*.py"):
        room = file.relative_to(source).parts[0].removesuffix(".py")
        if room.startswith("__"):
            continue  # the public names
        parts = (name.split(".") for name in imports(file) if name.startswith("demoe."))
        found.setdefault(room, set()).update(part[1] for part in parts if part[1] != room)
    return {room: used & found.keys() for room, used in found.items()}


def floors_of(rooms: Rooms) -> dict[str, int]:
    """Return the floor of each room."""
    floors: dict[str, int] = {}
    left = dict(rooms)
    while left:
        ready = [room for room, used in left.items() if used <= floors.keys()]
        if not ready:
            raise SystemExit(f"these rooms import each other in a ring, or one that does: {left}")
        for room in ready:
            floors[room] = 1 + max((floors[used] for used in left[room]), default=0)
        for room in ready:
            del left[room]
    return floors


def draw(rooms: Rooms, floors: dict[str, int], sizes: dict[str, int], path: Path) -> None:
    """Draw the rooms on their floors, with a line from each to those it imports."""
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

    by_floor: dict[int, list[str]] = {}
    for room, floor in sorted(floors.items()):
        by_floor.setdefault(floor, []).append(room)
    height = max(by_floor)
    figure = Figure((9, 0.85 * height + 0.4), layout="constrained")
    axes = figure.subplots()
    places = {
        room: ((number + 1) / (len(row) + 1), floor)
        for floor, row in by_floor.items()
        for number, room in enumerate(row)
    }
    for room, used in rooms.items():
        for other in used:
            (x, y), (to_x, to_y) = places[room], places[other]
            near = y - to_y == 1
            axes.annotate(
                "",
                (to_x, to_y + 0.24),
                (x, y - 0.24),
                arrowprops={
                    "arrowstyle": "-|>",
                    "color": "#0072b2" if near else "#d3dade",
                    "lw": 1.2 if near else 0.6,
                    "connectionstyle": "arc3,rad=0.08",
                },
                zorder=1,
            )
    for room, (x, y) in places.items():
        box = FancyBboxPatch(
            (x - 0.075, y - 0.2), 0.15, 0.4, "round,pad=0.01", fc="white", ec="#333", zorder=2
        )
        axes.add_patch(box)
        axes.text(x, y + 0.05, room, ha="center", va="center", fontsize=12, zorder=3)
        words = f"{sizes[room]} modules" if sizes[room] > 1 else "1 module"
        axes.text(x, y - 0.12, words, ha="center", va="center", fontsize=8, color="#666", zorder=3)
    axes.set(xlim=(0, 1), ylim=(0.6, height + 0.4))
    axes.axis("off")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Count and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=SOURCE, help="a folder demoe to count")
    parser.add_argument("--count", action="store_true", help="draw nothing")
    arguments = parser.parse_args()
    rooms = rooms_of(arguments.source)
    print(f"{len(rooms)} rooms, {sum(map(len, rooms.values()))} imports between them")
    floors = floors_of(rooms)
    print(f"{max(floors.values())} floors")
    sizes = {
        room: len([p for p in (arguments.source / room).rglob("*.py") if p.name != "__init__.py"])
        or 1
        for room in rooms
    }
    if not arguments.count:
        draw(rooms, floors, sizes, PICTURE)


if __name__ == "__main__":
    main()
