"""Mutation testing of ``rules/``: ``python tests/mutate_rules.py --sample 400``. Prints each survivor and the share killed.

A mutant is one changed operator, constant or branch of one module, compiled in memory in a forked child; nothing on disk
changes. It is killed by the worked cases, by random patients against the slow reading, or by the tests of ``tests/rules``.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import os
import random
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RULES = ROOT / "rules"
TESTS = ROOT / "tests" / "rules"
# Words and pages: a changed sentence is no clinical fault, and their tests read them whole. ``silence`` and ``withdrawal``
# are judged where they act, in a running engine over a store (tests/engine, tests/emitters): minutes a mutant.
LEFT_OUT = frozenset({"__init__", "wording", "page", "silence", "withdrawal"})
SEEDS = range(3000)
FILES = (
    *("test_cases_ansm.py", "test_cases_other.py", "test_assess.py", "test_overrides.py", "test_protocol.py"),
    *("test_span.py", "test_changes.py", "test_sides.py", "test_corners.py", "test_alert_wording.py"),
    *("test_asking.py", "test_texts.py", "test_explain.py", "test_decisions.py", "test_named_ids.py"),
    *("test_pages.py", "test_cli_rules.py", "test_shadow.py", "test_oracle.py"),
)
# Where the mutants of a module die soonest; no worked case reaches those of SILENT.
FIRST = {
    "alerts": "test_alert_wording.py",
    "asking": "test_asking.py",
    "cases": "test_oracle.py",
    "changes": "test_changes.py",
    "decisions": "test_decisions.py",
    "explain": "test_explain.py",
    "faults": "test_oracle.py",
    "limits": "test_overrides.py",
    "named_ids": "test_named_ids.py",
    "packaged": "test_protocol.py",
    "protocol_file": "test_protocol.py",
    "shadow": "test_shadow.py",
    "span": "test_span.py",
    "texts": "test_texts.py",
    "trace": "test_pages.py",
}
SILENT = frozenset({"alerts", "asking", "changes", "decisions", "explain", "limits", "named_ids", "shadow", "trace"})
# These look at thousands of random patients; some hundreds have been looked at before.
LONG = "not agree_on_random_patients"
SECONDS = 150

_COMPARE = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add}
_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}


def places(tree: ast.Module) -> Iterator[tuple[int, str, int]]:
    """(number of the node, what to change, line)."""
    decorated = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
        for decorator in node.decorator_list
        for part in ast.walk(decorator)
    }
    for number, node in enumerate(ast.walk(tree)):
        for what in _ways(node) if id(node) not in decorated else ():
            yield number, what, getattr(node, "lineno", 0)


def mutant(tree: ast.Module, number: int, what: str) -> ast.Module:
    changed = copy.deepcopy(tree)
    _apply(next(node for at, node in enumerate(ast.walk(changed)) if at == number), what)
    return changed


def _ways(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Compare):
        return [f"compare {n}" for n, op in enumerate(node.ops) if type(op) in _COMPARE]
    if isinstance(node, ast.BoolOp):
        return ["and/or"]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return ["drop not"]
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        return ["arithmetic"]
    if isinstance(node, ast.Constant) and type(node.value) in (int, bool):
        return ["constant"]
    if isinstance(node, ast.If | ast.IfExp):
        return ["branch"]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS:
        return ["call"]
    return []


def _apply(node: Any, what: str) -> None:
    if what.startswith("compare"):
        at = int(what.split()[1])
        node.ops[at] = _COMPARE[type(node.ops[at])]()
    elif what == "and/or":
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif what == "drop not":
        node.op = ast.UAdd()
        node.operand = ast.Call(ast.Name("bool", ast.Load()), [node.operand], [])
    elif what == "arithmetic":
        node.op = _ARITHMETIC[type(node.op)]()
    elif what == "constant":
        node.value = (not node.value) if isinstance(node.value, bool) else node.value + 1
    elif what == "branch":
        node.test = ast.UnaryOp(ast.Not(), node.test)
    elif what == "call":
        node.func.id = _CALLS[node.func.id]
    ast.fix_missing_locations(node)


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Serves one module of ``rules`` from a changed tree."""

    def __init__(self, name: str, tree: ast.Module, path: Path) -> None:
        self.name, self.tree, self.path = name, tree, path

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self)  # type: ignore[arg-type]

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.tree, str(self.path), "exec"), module.__dict__)  # noqa: S102 - what this file is for


def verdict_of_tests(module: str, expected: list[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    """ "" when everything passes, else what failed first. Runs in the child, on the mutant."""
    from rules.cases import case_verdict, read_case
    from rules.packaged import find_protocol

    protocol = find_protocol("ansm")
    for row, wanted in expected if module not in SILENT else ():
        line = case_verdict(protocol, read_case(row))
        if any(line[field] != value for field, value in wanted.items()):
            return "cases"
    import pytest

    quiet = ["-x", "-q", "--noconftest", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:asyncio"]
    options = ["-o", "addopts=--import-mode=importlib", "-o", "asyncio_mode=strict", "-W", "ignore", "-k", LONG]
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = "/dev/null"
    first = FIRST.get(module, FILES[0])
    paths = [str(TESTS / name) for name in (first, *(name for name in FILES if name != first))]
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = pytest.main([*quiet, *options, *paths])
    return "" if code == 0 else "tests"


def run(module: str, tree: ast.Module, expected: list[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    """Fork, judge the mutant in the child: "" survived, else what killed it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        # Of its own processor time: on a busy machine a slow survivor must not pass for one that hangs.
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        for name in [name for name in sys.modules if name == "rules" or name.startswith(("rules.", "engine"))]:
            del sys.modules[name]
        sys.meta_path.insert(0, _Mutated(f"rules.{module}", tree, RULES / f"{module}.py"))
        try:
            killed = verdict_of_tests(module, expected)
        except BaseException as error:
            killed = type(error).__name__
        os.write(writer, (killed or "-").encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return "" if said == "-" else said or "time"


def _source(name: str, line: int) -> str:
    return (RULES / f"{name}.py").read_text(encoding="utf-8").splitlines()[line - 1].strip()


def _named(place: tuple[str, int, str, int], said: str) -> bool:
    """Whether an earlier run named this mutant; by the text of its line, whose number may have changed since."""
    name, _, what, line = place
    found = re.findall(rf"^(?:SURVIVED|HANGS) rules/{name}\.py:\d+ {re.escape(what)}(?:: (.*))?$", said, re.MULTILINE)
    return _source(name, line) in found


def _preload() -> None:
    """What the children share; nothing of it imports ``rules``. A property is tried on fewer examples than in the suite."""
    import hypothesis
    import msgspec  # noqa: F401
    import pydantic  # noqa: F401
    import pytest  # noqa: F401
    import sqlalchemy  # noqa: F401

    whole = hypothesis.settings.__init__

    def fewer(self: Any, *parents: Any, **wanted: Any) -> None:
        if isinstance(wanted.get("max_examples"), int):
            wanted |= {"max_examples": min(wanted["max_examples"], 60), "derandomize": True, "database": None}
        whole(self, *parents, **wanted)

    hypothesis.settings.__init__ = fewer  # type: ignore[method-assign]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=0, help="at most so many mutants, chosen by --seed; 0: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", default="1/1", metavar="K/N", help="only every N-th mutant, from the K-th on")
    parser.add_argument(
        "--again", type=Path, metavar="FILE", help="only what an earlier run printed as SURVIVED or HANGS"
    )
    parser.add_argument("--minutes", type=float, default=60, help="stop after this")
    parser.add_argument("modules", nargs="*", help="of rules/, without .py; none: all")
    asked = parser.parse_args()
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), str(TESTS)]
    sys.dont_write_bytecode = True
    import oracle_ansm
    import random_cases

    names = asked.modules or sorted(path.stem for path in RULES.glob("*.py") if path.stem not in LEFT_OUT)
    trees = {name: ast.parse((RULES / f"{name}.py").read_text(encoding="utf-8")) for name in names}
    pool = [(name, *place) for name in names for place in places(trees[name])]
    total = len(pool)
    if asked.sample and asked.sample < total:
        pool = random.Random(asked.seed).sample(pool, asked.sample)
    if asked.again:
        pool = [place for place in pool if _named(place, asked.again.read_text(encoding="utf-8"))]
    part, parts = (int(number) for number in asked.part.split("/"))
    pool = pool[part - 1 :: parts]
    expected = []
    for seed in SEEDS:
        row = random_cases.random_case(seed)
        expected.append((json.loads(json.dumps(row), parse_float=Decimal), oracle_ansm.judge(row)))
    _preload()
    if failing := run(names[0], trees[names[0]], expected):
        print(f"the tests fail without any change: {failing}")
        return 1
    killed: Counter[str] = Counter()
    survived: Counter[str] = Counter()
    end = time.monotonic() + asked.minutes * 60
    for done, (name, number, what, line) in enumerate(pool, start=1):
        how = run(name, mutant(trees[name], number, what), expected)
        if how:
            killed[name] += 1
            if how == "time":
                print(f"HANGS rules/{name}.py:{line} {what}: {_source(name, line)}", flush=True)
        else:
            survived[name] += 1
            print(f"SURVIVED rules/{name}.py:{line} {what}: {_source(name, line)}", flush=True)
        if time.monotonic() > end:
            print(f"stopped after {done} of {len(pool)}", flush=True)
            break
    tried = sum(killed.values()) + sum(survived.values())
    for name in names:
        if killed[name] + survived[name]:
            print(f"{name}: {killed[name]} of {killed[name] + survived[name]} killed")
    print(
        f"{sum(killed.values())} of {tried} killed ({100 * sum(killed.values()) / max(tried, 1):.1f} %), of {total} mutants"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
