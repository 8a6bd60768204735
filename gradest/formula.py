"""Formulas in N, K, m and knobs, as claims state them: `samples * (1 + N * (K - 1))`.

Read by Python's own parser and computed in fractions, never by eval.  The grammar is whole
numbers, names, + - * / ** and min(a, b).
"""

import ast
import math
import operator
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from gradest.errors import PluginError

SIZES = ("N", "K", "m")  # latents, categories, samples of a multi-sample bound

_COMPUTED = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_SHOWN = {ast.Add: " + ", ast.Sub: " − ", ast.Mult: " ", ast.Div: "/", ast.Pow: "^"}
_BINDING = {ast.Add: 1, ast.Sub: 1, ast.Mult: 2, ast.Div: 2, ast.Pow: 3}
_ATOM = 4


def examine(formula: str, names: Iterable[str], owner: str) -> None:
    """Raises PluginError, naming the owner, where the formula leaves the grammar or the names."""
    known = {*SIZES, *names}
    for node in ast.walk(_parsed(formula, owner)):
        if isinstance(node, ast.Name) and node.id not in known | {"min"}:
            raise PluginError(
                f"{_claim(owner, formula)}: unknown name {node.id!r}; "
                f"known: {', '.join(sorted(known))}"
            )


def value(formula: str, values: Mapping[str, Any], owner: str) -> int:
    """The whole number that the formula gives.

    Raises PluginError, naming the owner, for a formula that leaves the grammar, a name without a
    number, or a result that is not whole.
    """
    try:
        result = _value(_parsed(formula, owner), values)
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise PluginError(f"{_claim(owner, formula)}: {type(error).__name__}: {error}") from None
    if not isinstance(result, Fraction) or result.denominator != 1:
        raise PluginError(f"{_claim(owner, formula)}: {result} is no whole number")
    return int(result)


def shown(formula: str, owner: str) -> str:
    """As mathematics writes it: `samples (1 + N (K − 1))`, `K^N`.

    Raises PluginError, naming the owner, for a formula that leaves the grammar.
    """
    return _text(_parsed(formula, owner))


def _claim(owner: str, formula: object) -> str:
    return f"{owner}: the formula {formula!r}"


def _parsed(formula: str, owner: str) -> ast.expr:
    try:
        root = ast.parse(formula, mode="eval").body
        _check(root)
    except (SyntaxError, TypeError, ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise PluginError(
            f"{_claim(owner, formula)} is none in whole numbers, N, K, m, knobs, + - * / ** and "
            f"min(a, b): {reason}"
        ) from None
    return root


def _check(node: ast.expr) -> None:
    """Raises ValueError outside of the grammar."""
    match node:
        case ast.BinOp(left, op, right) if type(op) in _COMPUTED:
            _check(left)
            _check(right)
        case ast.Call(ast.Name("min"), [_, _, *_] as arguments, []):
            for each in arguments:
                _check(each)
        case ast.Constant(int(number)) if not isinstance(number, bool):
            pass
        case ast.Name(name) if name != "min":
            pass
        case _:
            raise ValueError(f"it holds {ast.unparse(node)!r}")


def _value(node: ast.expr, values: Mapping[str, Any]) -> Fraction:
    match node:
        case ast.BinOp(left, op, right):
            return _COMPUTED[type(op)](_value(left, values), _value(right, values))
        case ast.Call(_, arguments):
            return min(_value(each, values) for each in arguments)
        case ast.Constant(number):
            return Fraction(number)
    found = values[node.id]
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise ValueError(f"{node.id} = {found!r} is no number")
    return Fraction(found)


def _text(node: ast.expr) -> str:
    match node:
        case ast.BinOp(left, op, right):
            binds, power = _BINDING[type(op)], isinstance(op, ast.Pow)
            before, after = _inside(left, binds + power), _inside(right, binds + (not power))
            # A number behind a factor would read as a part of it.
            digit = isinstance(op, ast.Mult) and after[0].isdigit()
            return f"{before}{' × ' if digit else _SHOWN[type(op)]}{after}"
        case ast.Call(_, arguments):
            return f"min({', '.join(map(_text, arguments))})"
        case ast.Constant(number):
            return str(number)
    return node.id


def _inside(node: ast.expr, binds: int) -> str:
    """In brackets where it would bind less tightly than what is around it."""
    own = _BINDING[type(node.op)] if isinstance(node, ast.BinOp) else _ATOM
    return _text(node) if own >= binds else f"({_text(node)})"
