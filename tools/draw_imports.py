"""Draw which folder of the package imports which, as a Mermaid graph in docs/design.md.

    python tools/draw_imports.py            bring the drawing up to date
    python tools/draw_imports.py --check    exit with 1 if it is not

One box a folder or file of src/meshwright, one row a floor of pyproject.toml's import rules. An arrow is an import; one
that follows from others is left out (where a imports b and b imports c, a -> c is not drawn). Stops at a cycle.
"""

import sys
import tomllib
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "design.md"
BEGIN, END = "<!-- imports: made by tools/draw_imports.py -->", "<!-- end of imports -->"


def imports_by_folder() -> dict[str, set[str]]:
    """What each folder or file directly under the package imports of the others."""
    sys.path.insert(0, str(ROOT / "src"))
    graph = grimp.build_graph("meshwright", cache_dir=None)
    imports: dict[str, set[str]] = {}
    for module in graph.modules:
        if module == "meshwright":  # the door of the whole, which gives out names of most folders
            continue
        importer = module.split(".")[1]
        imported = {name.split(".")[1] for name in graph.find_modules_directly_imported_by(module) if "." in name}
        imports[importer] = imports.get(importer, set()) | (imported - {importer})
    return imports


def without_shortcuts(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same reachability with the fewest arrows.

    Raises:
        SystemExit: the imports run in a circle.
    """

    def reachable(start: str, path: tuple[str, ...] = ()) -> set[str]:
        if start in path:
            raise SystemExit(f"imports run in a circle: {' -> '.join([*path[path.index(start) :], start])}")
        return imports[start].union(*(reachable(name, (*path, start)) for name in imports[start]))

    beyond = {name: reachable(name) for name in imports}
    return {
        importer: {name for name in imported if not any(name in beyond[other] for other in imported)}
        for importer, imported in imports.items()
    }


def floors() -> list[list[str]]:
    """The rows of the layers contract, from the top."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (layers,) = (c["layers"] for c in settings["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    return [[name.strip("() ") for name in layer.replace(":", "|").split("|")] for layer in layers]


def drawing() -> str:
    imports = imports_by_folder()
    lines = ["```mermaid", "graph TD"]
    for number, names in enumerate(floors()):
        present = [name for name in names if name in imports]
        if present:
            lines += [f"  subgraph floor{number}[ ]", f"    {'; '.join(present)}", "  end"]
    for importer, imported in sorted(without_shortcuts(imports).items()):
        lines += [f"  {importer} --> {name}" for name in sorted(imported)]
    return "\n".join([BEGIN, "", *lines, "```", "", END])


def main() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not rest or not after:
        raise SystemExit(f"{DOCUMENT}: has no place for the drawing; add the lines {BEGIN} and {END}")
    current = before + drawing() + after
    if "--check" in sys.argv[1:]:
        if current != text:
            raise SystemExit(f"{DOCUMENT}: the drawing of the imports is out of date; run python tools/draw_imports.py")
    else:
        DOCUMENT.write_text(current, encoding="utf-8")


if __name__ == "__main__":
    main()
