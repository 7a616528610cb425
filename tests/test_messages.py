"""Every message of an error, as the code builds it, is in `messages.txt`: one place to read them all aloud.

The messages are taken from the syntax tree, as templates: what a message repeats is in braces, alternatives are [one|other],
and the constants of modules are written out. The test fails after a change of a message, until `pytest tests/test_messages.py
--golden-update` has written the file. Read its diff aloud before you commit it. Other tests match the class and key words.
"""

from __future__ import annotations

import ast
import difflib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "messages.txt"
ROOTS = ("pipeline", "stages")
Constants = dict[str, ast.expr]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts[1:]).removesuffix(".__init__")


def constants_of(tree: ast.Module) -> Constants:
    """The texts that a module keeps under names, as expressions."""
    text = (ast.Constant, ast.JoinedStr, ast.BinOp, ast.IfExp)
    return {
        target.id: node.value
        for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, text)
        for target in node.targets if isinstance(target, ast.Name)
    }  # fmt: skip


def words(node: ast.expr, known: Constants) -> str:
    """What an expression says in a message."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(words(value, known) for value in values)
        case ast.FormattedValue(value=value):
            return words(value, known)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return words(left, known) + words(right, known)
        case ast.BinOp(left=left, op=ast.Mult()):
            return f"[{words(left, known)}|]"
        case ast.IfExp(body=body, orelse=other):
            return f"[{words(body, known)}|{words(other, known)}]"
        case ast.Name(id=name) if name in known:
            return words(known[name], {})
        case _:
            return "{" + ast.unparse(node) + "}"


def sources(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        match node:
            case ast.Raise(exc=ast.Call() as call):
                yield call
            case ast.Call(keywords=keywords) if any(keyword.arg == "remedy" for keyword in keywords):
                yield node
            case ast.Assign():
                yield node


def said(node: ast.AST, known: Constants) -> tuple[str, str] | None:
    """Under which name a message stands, and the message: of a call that makes an error (one that is raised, or is given a
    `remedy`), and of a variable `what` or `remedy` that such a call is given.
    """
    match node:
        case ast.Call(func=func, args=args, keywords=keywords):
            parts = [words(each, known) for each in (*args, *(k.value for k in keywords if k.arg == "remedy"))]
            if any(not each.startswith("{") or not each.endswith("}") for each in parts):
                return ast.unparse(func).removeprefix("errors."), "; ".join(parts)
        case ast.Assign(targets=[ast.Name(id="what" | "remedy" as name)], value=value):
            if not (text := words(value, known)).startswith("{"):
                return name, text
    return None


def messages() -> dict[str, set[str]]:
    """The messages of the code, by class (or by the function or variable that has them)."""
    paths = sorted(path for root in ROOTS for path in (ROOT / root).rglob("*.py"))
    trees = {module_of(path): ast.parse(path.read_text()) for path in paths}
    constants = {module: constants_of(tree) for module, tree in trees.items()}
    found: dict[str, set[str]] = defaultdict(set)
    for module, tree in trees.items():
        known = dict(constants[module])
        for node in tree.body:
            if isinstance(node, ast.ImportFrom):
                there = constants.get(node.module or "", {})
                known |= {each.asname or each.name: there[each.name] for each in node.names if each.name in there}
        for name, text in filter(None, (said(node, known) for node in sources(tree))):
            found[name].add("  " + text.replace("\n", " "))
    return found


def test_every_message_is_in_the_golden_file(pytestconfig: pytest.Config) -> None:
    now = [line for name, said in sorted(messages().items()) for line in (name, *sorted(said))]
    if pytestconfig.option.golden_update:
        GOLDEN.write_text("\n".join([*now, ""]))
    kept = GOLDEN.read_text().splitlines()
    told = "read them aloud, then run: pytest tests/test_messages.py --golden-update"
    changed = [*difflib.unified_diff(kept, now, "messages.txt", "the code", n=0, lineterm="")]
    assert not changed, "\n".join([f"messages changed; {told}", *changed])
