import ast
import pathlib

COMMON = pathlib.Path(__file__).resolve().parent
FLOORS = ("clips", "models", "runs", "explaining", "reporting", "command_line")  # From the ground floor up.


def floor(module: tuple[str, ...]) -> int:
    """Returns the floor of a module of common/, by its parts after "common": 0 for the ground floor."""
    return FLOORS.index(module[0]) + 1 if module and module[0] in FLOORS else 0


def test_no_module_imports_from_a_floor_above_it():
    up = []
    for path in sorted(COMMON.rglob("*.py")):
        here = path.relative_to(COMMON).with_suffix("").parts
        if path.name.endswith("_test.py") or here in (
            ("report",),
            ("score_when",),
        ):  # Entry scripts may import anything.
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            names = [f"{node.module}.{name}" for name in names] if isinstance(node, ast.ImportFrom) else names
            imported = [tuple(name.split(".")[1:]) for name in names if name.split(".")[0] == "common"]
            up += [(path.name, module) for module in imported if floor(module) > floor(here)]
    assert not up
