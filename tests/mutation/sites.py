# SPDX-License-Identifier: Apache-2.0
"""Where a module can be changed by one thing, and how: comparisons, conditions, numbers, and what is left out.

Assertions are left alone: they state what holds, so a weaker one changes nothing that can be seen.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
}


@dataclass(frozen=True)
class Site:
    """One change. `name` says it in words that stay the same while other lines move."""

    place: int  #: the number of the node, as `ast.walk` comes to it
    way: int
    name: str


def _ways(node: ast.AST) -> list[tuple[str, ast.AST]]:
    """Return the ways in which one node can be changed."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in _COMPARE:
            other = copy.deepcopy(node)
            other.ops = [_COMPARE[type(op)]()]
            return [(ast.unparse(other), other)]
        case ast.BoolOp(op=op, values=values):
            other = ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
            fewer = [(ast.unparse(value), value) for value in values] if len(values) == 2 else []
            return [(ast.unparse(other), other), *fewer]
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return [(ast.unparse(operand), operand)]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            other = ast.BinOp(left, _ARITHMETIC[type(op)](), right)
            return [(ast.unparse(other), other)]
        case ast.Constant(value=bool() as value):
            return [(str(not value), ast.Constant(not value))]
        case ast.Constant(value=(int() | float()) as value):
            return [(str(value + 1), ast.Constant(value + 1))]
        case ast.IfExp(body=body, orelse=orelse):
            return [(ast.unparse(body), body), (ast.unparse(orelse), orelse)]
        case ast.Call(keywords=[_, *_] as keywords) if ast.unparse(node.func) in ("replace", "StepRun"):
            # A field that is not set.
            ways: list[tuple[str, ast.AST]] = []
            for left_out in keywords:
                other_call = copy.copy(node)
                other_call.keywords = [keyword for keyword in keywords if keyword is not left_out]
                ways.append((f"without {left_out.arg}=", other_call))
            return ways
        case ast.If(test=test):
            ways = []
            for value in (True, False):
                other_if = copy.copy(node)
                other_if.test = ast.Constant(value)
                ways.append((f"if {value}, not {ast.unparse(test)}", other_if))
            return ways
        case _:
            return []


def _left_alone(tree: ast.Module) -> set[int]:
    """Return the nodes in assertions, annotations and module-level statements that are not functions or classes."""
    alone: set[int] = set()
    for node in ast.walk(tree):
        parts: list[ast.AST | None] = []
        match node:
            case ast.Assert():
                parts = [node]
            case ast.arg(annotation=annotation):
                parts = [annotation]
            case ast.FunctionDef(returns=returns, decorator_list=decorators):
                parts = [returns, *decorators]
            case ast.AnnAssign(annotation=annotation):
                parts = [annotation]
            case ast.ClassDef(keywords=keywords, decorator_list=decorators):
                parts = [*keywords, *decorators]
        for part in parts:
            if part is not None:
                alone |= {id(inner) for inner in ast.walk(part)}
    return alone


def _owners(tree: ast.Module) -> dict[int, str]:
    """Return for each node the function or class that it is in."""
    owners: dict[int, str] = {}

    def go(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = name
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                inner = f"{name}.{child.name}" if name else child.name
            owners[id(child)] = inner
            go(child, inner)

    go(tree, "")
    return owners


def sites(source: str) -> Iterator[Site]:
    """Return all changes of a module."""
    tree = ast.parse(source)
    alone, owners = _left_alone(tree), _owners(tree)
    counted: dict[str, int] = {}
    for place, node in enumerate(ast.walk(tree)):
        if id(node) in alone:
            continue
        for way, (words, _) in enumerate(_ways(node)):
            name = f"{owners.get(id(node), '')}: {_short(node)} -> {words}"
            counted[name] = counted.get(name, 0) + 1
            again = f" ({counted[name]})" if counted[name] > 1 else ""
            yield Site(place, way, " ".join(f"{name}{again}".split()))


def _short(node: ast.AST) -> str:
    if isinstance(node, ast.If):
        return "if"
    return " ".join(ast.unparse(node).split())[:120]


def changed(source: str, site: Site) -> ast.Module:
    """Return the module with one change."""
    tree = ast.parse(source)
    target = next(node for place, node in enumerate(ast.walk(tree)) if place == site.place)
    _, new = _ways(target)[site.way]

    class Change(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            if node is target:
                return new
            return self.generic_visit(node)

    Change().visit(tree)
    return ast.fix_missing_locations(tree)
