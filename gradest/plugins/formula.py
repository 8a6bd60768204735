"""Formulas in N, K, m and knobs, as claims state them: `samples * (1 + N * (K - 1))`.

They are parsed by Python's own parser and computed in fractions, never by eval.  The grammar is
integers, names, + - * / ** and min(a, b).
"""

import ast
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from gradest.errors import PluginError

SIZES = ("N", "K", "m")  # latents, categories, samples of a multi-sample bound


class _Operator(NamedTuple):
    compute: Callable[[Any, Any], Any]
    sign: str
    precedence: int


_OPERATORS = {
    ast.Add: _Operator(operator.add, " + ", 1),
    ast.Sub: _Operator(operator.sub, " − ", 1),
    ast.Mult: _Operator(operator.mul, " ", 2),
    ast.Div: _Operator(operator.truediv, "/", 2),
    ast.Pow: _Operator(operator.pow, "^", 3),
}
_ATOM = 4  # the precedence of what needs no brackets
_ALLOWED = "only integers, N, K, m, knob names, + - * / ** and min(…) are allowed"


def examine(formula: str, names: Iterable[str], owner: str) -> None:
    """Raises PluginError, naming the owner, for a formula outside the grammar or unknown names."""
    available = {*SIZES, *names}
    for node in ast.walk(_parse(formula, owner)):
        if isinstance(node, ast.Name) and node.id not in available | {"min"}:
            raise PluginError(
                f"{owner}: invalid formula {formula!r}: unknown name {node.id!r}; "
                f"available: {', '.join(sorted(available))}"
            )


def value(formula: str, values: Mapping[str, Any], owner: str) -> int:
    """The integer that the formula evaluates to.

    Raises PluginError, naming the owner, for a formula outside the grammar, a name without a
    number, and a result that is not an integer.
    """
    try:
        result = _value(_parse(formula, owner), values)
    except (ArithmeticError, TypeError, ValueError, LookupError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise PluginError(f"{owner}: the formula {formula!r}: {reason}") from None
    if not isinstance(result, Fraction) or result.denominator != 1:
        raise PluginError(f"{owner}: the formula {formula!r}: expected an integer, got {result}")
    return int(result)


def notation(formula: str, owner: str) -> str:
    """The formula in mathematical notation: `samples (1 + N (K − 1))`, `K^N`.

    Raises PluginError, naming the owner, for a formula outside the grammar.
    """
    return _notation(_parse(formula, owner))


def _parse(formula: str, owner: str) -> ast.expr:
    try:
        root = ast.parse(formula, mode="eval").body
        _notation(root)  # raises outside of the grammar
    except (SyntaxError, TypeError, ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise PluginError(f"{owner}: invalid formula {formula!r}: {_ALLOWED}; {reason}") from None
    return root


def _value(node: ast.expr, values: Mapping[str, Any]) -> Any:
    match node:
        case ast.BinOp(left, op, right):
            return _OPERATORS[type(op)].compute(_value(left, values), _value(right, values))
        case ast.Call(_, arguments):
            return min(_value(each, values) for each in arguments)
        case ast.Constant(number):
            return Fraction(number)
    number = values[node.id]
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise TypeError(f"expected a number for {node.id}, got {number!r}")
    return Fraction(number)


def _notation(node: ast.expr) -> str:
    """Raises ValueError for a node that is outside of the grammar."""
    match node:
        case ast.BinOp(left, op, right) if type(op) in _OPERATORS:
            _, sign, precedence = _OPERATORS[type(op)]
            is_power = isinstance(op, ast.Pow)
            before = _in_brackets(left, precedence + is_power)
            after = _in_brackets(right, precedence + (not is_power))
            if isinstance(op, ast.Mult) and after[0].isdigit():
                sign = " × "  # `N 2` would read as one name
            return f"{before}{sign}{after}"
        case ast.Call(ast.Name("min"), [_, _, *_] as arguments, []):
            return f"min({', '.join(map(_notation, arguments))})"
        case ast.Constant(int(number)) if not isinstance(number, bool):
            return str(number)
        case ast.Name(name) if name != "min":
            return name
    raise ValueError(f"found {ast.unparse(node)!r}")


def _in_brackets(node: ast.expr, precedence: int) -> str:
    """The notation of an operand, in brackets if it binds less tightly than its surroundings."""
    is_operation = isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS
    own = _OPERATORS[type(node.op)].precedence if is_operation else _ATOM
    return _notation(node) if own >= precedence else f"({_notation(node)})"
