"""The house's layers, kept by walking every import (architecture.md: who may import whom)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("wire", "rules", "store", "ingest", "emitters", "console", "engine")

ALLOWED = {
    "wire": set(),
    "rules": set(),
    "store": {"sqlalchemy", "psycopg", "alembic", "msgspec", "rules", "cryptography"},
    "ingest": {"store", "wire", "rules", "msgspec", "fastapi", "starlette", "aiokafka"},
    "emitters": {"rules", "wire", "aiohttp", "aiokafka", "joserfc", "yarl", "msgspec"},
    "console": {
        *("store", "wire", "rules", "msgspec", "sqlalchemy"),
        *("fastapi", "starlette", "jinja2", "markupsafe", "argon2"),
    },
}
# The libraries that judge outgoing shapes are slow to load, and are never needed to send.
JUDGES = {"fhir", "hl7apy", "pydantic"}
IMPURE = {"time", "random", "socket", "logging", "secrets", "asyncio", "threading", "subprocess", "urllib", "http"}


def files(layer: str) -> list[Path]:
    found = sorted((ROOT / layer).rglob("*.py"))
    assert found, f"{layer} holds no code"
    return found


def imports(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """(module, where) of every import, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((name.name, node) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer"
            yield node.module or "", node


def parsed(layer: str) -> Iterator[tuple[str, ast.Module]]:
    for file in files(layer):
        yield str(file.relative_to(ROOT)), ast.parse(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("layer", sorted(ALLOWED))
def test_a_layer_imports_only_what_stands_below_it(layer: str) -> None:
    permitted = ALLOWED[layer] | {layer} | sys.stdlib_module_names
    wrong = []
    for name, tree in parsed(layer):
        for module, node in imports(tree):
            top = module.partition(".")[0]
            if top in permitted or (name == "emitters/check.py" and top in JUDGES):
                continue
            wrong.append(f"{name}:{getattr(node, 'lineno', 0)} imports {module}")
    assert wrong == []


def test_the_judging_libraries_are_loaded_only_inside_functions() -> None:
    tree = ast.parse((ROOT / "emitters" / "check.py").read_text(encoding="utf-8"))
    top_level = {module.partition(".")[0] for node in tree.body for module, _ in imports(node) if _in_module(node)}
    assert top_level.isdisjoint(JUDGES)


def _in_module(node: ast.stmt) -> bool:
    return not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


@pytest.mark.parametrize("layer", ["wire", "rules"])
def test_the_pure_cores_know_no_clock_no_socket_no_log_and_no_chance(layer: str) -> None:
    wrong = []
    for name, tree in parsed(layer):
        wrong += [
            f"{name} imports {module}" for module, _ in imports(tree) if module.partition(".")[0] in IMPURE | {"os"}
        ]
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in ("now", "utcnow", "today", "environ", "getenv"):
                wrong.append(f"{name}:{node.lineno} asks for .{node.attr}")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("open", "print"):
                wrong.append(f"{name}:{node.lineno} calls {node.func.id}")
    assert wrong == []


def test_no_float_stands_in_the_rules() -> None:
    wrong = []
    for name, tree in parsed("rules"):
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, float):
                wrong.append(f"{name}:{node.lineno} {node.value}")
            if isinstance(node, ast.Name) and node.id == "float":
                wrong.append(f"{name}:{node.lineno} float")
    assert wrong == []


@pytest.mark.parametrize("layer", LAYERS)
def test_no_code_imports_tests_or_fixtures(layer: str) -> None:
    wrong = [
        f"{name} imports {module}"
        for name, tree in parsed(layer)
        for module, _ in imports(tree)
        if module.partition(".")[0] in ("tests", "fixtures")
    ]
    assert wrong == []


@pytest.mark.parametrize("layer", LAYERS)
def test_the_distribution_of_wheels_named_like_our_folders_is_not_what_gets_imported(layer: str) -> None:
    module = __import__(layer)
    assert Path(module.__file__ or "").resolve().parent == ROOT / layer


def lists_its_face(file: Path) -> bool:
    """Does the module say in ``__all__`` what others may use?"""
    return any(
        isinstance(target, ast.Name) and target.id == "__all__"
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    )


PACKAGES = sorted(
    str(init.parent.relative_to(ROOT))
    for layer in LAYERS
    for init in files(layer)
    if init.name == "__init__.py" and "migrations" not in init.parts
)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_lists_what_others_may_use(package: str) -> None:
    """In ``__init__``; where that is empty, its modules are its face, and each of them lists it."""
    init = ROOT / package / "__init__.py"
    face = [init] if init.read_text(encoding="utf-8").strip() else sorted((ROOT / package).glob("[!_]*.py"))
    assert [file.name for file in face if not lists_its_face(file)] == []


@pytest.mark.parametrize("layer", LAYERS)
def test_no_package_works_at_import(layer: str) -> None:
    """An ``__init__`` holds imports, names and words; anything else would run before anybody asked."""
    for init in sorted((ROOT / layer).rglob("__init__.py")):
        body = ast.parse(init.read_text(encoding="utf-8")).body
        if init.parent == ROOT / "ingest" / "reading":
            continue  # the face of reading is its own small module of functions
        for node in body:
            assert isinstance(node, ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign | ast.Expr), init
