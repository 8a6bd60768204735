"""Claims about estimators, as text that can be tested: `variance(disarm) <= 0.95 * variance(arm)`.

A claim compares two expressions of numbers and quantities by <=, <, >=, > or ==; an equality may
state a tolerance, `+- 1%` or `+- 0.002`.  A quantity names a column of the measurements, or a
metric of trainings, and an estimator of the suite with the knobs that single it out.  Of descents,
`median(...)` is the median of a metric over the seeds, and `share(... < 0.1)` the share of seeds
for which a comparison holds.  The text is parsed by Python's own parser and never evaluated.
Quantities of different units, such as a bias and a variance, cannot be compared or added.
"""

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from gradest.support import shortened, suggestion

LONGEST = 1000  # characters of a claim

Unit = tuple[int, int]  # powers of f and of evaluations; a pure number has none

NUMBERS: Unit = (0, 0)

# The columns of measurements that claims may speak of, and their units.
MEASURED: Mapping[str, Unit] = {
    "bias": (1, 0),
    "relative_bias": NUMBERS,
    "best_scale": NUMBERS,
    "relative_bias_rescaled": NUMBERS,
    "variance": (2, 0),
    "mse": (2, 0),
    "work_variance": (2, 1),
    "cosine": NUMBERS,
    "snr": NUMBERS,
    "value": (1, 0),
    "gradient_norm": (1, 0),
    "evaluations": (0, 1),
    "gradient_evaluations": (0, 1),
}
# The metrics of trainings of models.
TRAINED: Mapping[str, Unit] = {
    "objective": (1, 0),
    "negative_elbo": (1, 0),
    "negative_bound": (1, 0),
    "gap": (1, 0),
}
# The metrics of descents of other tasks.
DESCENDED: Mapping[str, Unit] = {
    "value": (1, 0),
    "gradient_norm": (1, 0),
    "probability": NUMBERS,
    "gradient_variance": (2, 0),
    "log_variance": NUMBERS,
}
# Options of a metric of trainings, which are not knobs; descents have no data to split.
OPTIONS = ("step", "learning_rate", "split")

_RELATIONS = {ast.LtE: "<=", ast.Lt: "<", ast.GtE: ">=", ast.Gt: ">", ast.Eq: "=="}
_OPERATIONS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_TOLERANCE = re.compile(r"(?P<claim>.*?)(?:\+-|±)(?P<size>[^%]*)(?P<percent>%?)\s*", re.DOTALL)
_WORDS = {"true": True, "false": False, "null": None}


class ClaimError(ValueError):
    """A claim that cannot be read, or that compares what cannot be compared."""


@dataclass(frozen=True)
class Number:
    value: float

    @property
    def unit(self) -> Unit | None:
        """None: a number takes the unit of what it is compared with or added to."""
        return None

    def quantities(self) -> Iterator["Quantity"]:
        yield from ()


@dataclass(frozen=True)
class Quantity:
    """A quantity of an estimator, such as its variance."""

    name: str
    estimator: str
    settings: Mapping[str, Any]  # values of knobs, and of OPTIONS
    trained: bool = False  # a metric of trainings, whose name measurements may have as well

    @property
    def unit(self) -> Unit:
        return (MEASURED | TRAINED | DESCENDED)[self.name]

    @property
    def knobs(self) -> dict[str, Any]:
        return {k: v for k, v in self.settings.items() if k not in self.options}

    @property
    def options(self) -> dict[str, Any]:
        available = OPTIONS if self.name in TRAINED else OPTIONS[:2]
        return {k: v for k, v in self.settings.items() if self.trained and k in available}

    def quantities(self) -> Iterator["Quantity"]:
        yield self

    def __str__(self) -> str:
        inside = [self.estimator, *(f"{k}={v}" for k, v in self.settings.items())]
        return f"{self.name}({', '.join(inside)})"


@dataclass(frozen=True)
class Median:
    """The median of a metric over the seeds."""

    metric: Quantity

    @property
    def unit(self) -> Unit:
        return self.metric.unit

    def quantities(self) -> Iterator[Quantity]:
        yield self.metric

    def __str__(self) -> str:
        return f"median({self.metric})"


@dataclass(frozen=True)
class Share:
    """The share of seeds whose metric compares with a number in this way."""

    metric: Quantity
    symbol: str  # one of <=, <, >= and >
    bound: float
    unit: ClassVar[Unit] = NUMBERS

    def quantities(self) -> Iterator[Quantity]:
        yield self.metric

    def __str__(self) -> str:
        return f"share({self.metric} {self.symbol} {self.bound:g})"


@dataclass(frozen=True)
class Operation:
    """A sum, a difference, a product with a number, or a ratio."""

    symbol: str
    left: "Expression"
    right: "Expression"
    unit: Unit | None

    def quantities(self) -> Iterator[Quantity]:
        yield from self.left.quantities()
        yield from self.right.quantities()


Read = Quantity | Median | Share  # what rows give a value
Expression = Number | Read | Operation

T = TypeVar("T")


def compute(expression: Expression, read: Callable[[Read], T], constant: Callable[[float], T]) -> T:
    """The value of an expression, in any type with + - * /.

    `read` gives the value of a quantity, a median or a share, and `constant` that of a number.
    """
    match expression:
        case Number(value):
            return constant(value)
        case Quantity() | Median() | Share():
            return read(expression)
        case Operation(symbol, left, right):
            return _ARITHMETIC[symbol](
                compute(left, read, constant), compute(right, read, constant)
            )


@dataclass(frozen=True)
class Tolerance:
    """How far from equal still counts as equal."""

    size: float
    relative: bool


@dataclass(frozen=True)
class Relation:
    """Two expressions and how they are claimed to compare."""

    left: Expression
    symbol: str
    right: Expression
    tolerance: Tolerance | None = None

    def quantities(self) -> list[Quantity]:
        return [*self.left.quantities(), *self.right.quantities()]


def parse_claim(text: str, trained: bool = False) -> Relation:
    """The relation that a claim states, about trainings where `trained`.

    Raises ClaimError for anything else.
    """
    if len(text) > LONGEST:
        raise ClaimError(f"expected at most {LONGEST:,} characters, got {len(text):,}")
    match = _TOLERANCE.fullmatch(text)
    tree = _tree(match["claim"] if match else text)
    if not isinstance(tree, ast.Compare):
        raise ClaimError(f"expected a comparison by <=, <, >=, > or ==, got {shortened(text)}")
    if len(tree.ops) > 1:
        raise ClaimError(f"expected one comparison, got {len(tree.ops)}; write a claim for each")
    symbol = _RELATIONS.get(type(tree.ops[0]))
    if symbol is None:
        raise ClaimError(f"expected a comparison by <=, <, >=, > or ==, got {shortened(text)}")
    left, right = (_expression(side, trained) for side in (tree.left, tree.comparators[0]))
    _common_unit(left, right, "compared")
    relation = Relation(left, symbol, right, _tolerance(match, symbol, right) if match else None)
    if not relation.quantities():
        raise ClaimError(f"expected a quantity such as variance(rloo), got {shortened(text)}")
    return relation


def _tree(text: str) -> ast.expr:
    try:
        # A line break inside a claim is a space, as YAML's folded text would have it.
        return ast.parse(" ".join(text.split()), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ClaimError(
            f"cannot parse {shortened(text)}; expected a form such as "
            "`variance(rloo, samples=2) <= 0.5 * variance(reinforce)`"
        ) from None


def _tolerance(match: re.Match[str], symbol: str, right: Expression) -> Tolerance:
    if symbol != "==":
        raise ClaimError(f"a tolerance is allowed only with ==, got one with {symbol}")
    size = _plain_number(match["size"].strip())
    if size is None or not 0 < size < float("inf"):
        raise ClaimError(
            f"expected a positive tolerance such as +- 1% or +- 0.002, got "
            f"{shortened(match['size'].strip() + match['percent'])}"
        )
    relative = bool(match["percent"])
    if relative and size >= 100:
        raise ClaimError(f"expected a tolerance below 100 %, got {size:g} %")
    if relative and isinstance(right, Number) and right.value == 0:
        raise ClaimError("a percentage of 0 is 0; state the tolerance as a number, as in +- 0.02")
    return Tolerance(size / 100 if relative else size, relative)


def _plain_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _expression(node: ast.expr, trained: bool) -> Expression:
    match node:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() | float() as value):
            return Number(_finite(value))
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return Number(-_finite(value))
        case ast.Call(func=ast.Name(id="median" | "share")):
            return _over_seeds(node)
        case ast.Call():
            return _quantity(node, trained)
        case ast.BinOp() if type(node.op) in _OPERATIONS:
            return _operation(node, trained)
    raise ClaimError(
        f"expected a number, a quantity such as variance(rloo), or + - * / of them, got "
        f"{shortened(ast.unparse(node))}"
    )


def _finite(value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if number == float("inf"):
        raise ClaimError(f"expected a finite number, got {shortened(value)}")
    return number


def _operation(node: ast.BinOp, trained: bool) -> Expression:
    symbol = _OPERATIONS[type(node.op)]
    left, right = _expression(node.left, trained), _expression(node.right, trained)
    if isinstance(left, Number) and isinstance(right, Number):
        return _folded(symbol, left.value, right.value)
    if symbol in "+-":
        return Operation(symbol, left, right, _common_unit(left, right, "added"))
    if symbol == "*":
        if not (isinstance(left, Number) or isinstance(right, Number)):
            raise ClaimError("expected a product of a quantity with a number, got two quantities")
        return Operation(symbol, left, right, left.unit or right.unit)
    if isinstance(left, Number):
        raise ClaimError("expected a quantity in the numerator, got a number")
    if isinstance(right, Number) and right.value == 0:
        raise ClaimError("expected a denominator that is not 0")
    over = right.unit or NUMBERS
    return Operation(symbol, left, right, (left.unit[0] - over[0], left.unit[1] - over[1]))


def _folded(symbol: str, a: float, b: float) -> Number:
    if symbol == "/" and b == 0:
        raise ClaimError("expected a denominator that is not 0")
    return Number(_finite(_ARITHMETIC[symbol](a, b)))


def _common_unit(left: Expression, right: Expression, verb: str) -> Unit | None:
    """Raises ClaimError for expressions of different units."""
    units = {expression.unit for expression in (left, right)} - {None}
    if len(units) > 1:
        names = (_description(expression) for expression in (left, right))
        raise ClaimError(f"{' and '.join(names)} have different units and cannot be {verb}")
    return next(iter(units), None)


def _description(expression: Expression) -> str:
    """The first quantity of an expression and its unit."""
    f, evaluations = expression.unit or NUMBERS
    parts = [f"f^{f}"] * bool(f) + [f"evaluations^{evaluations}"] * bool(evaluations)
    unit = " ".join(parts).replace("^1", "") or "a pure number"
    return f"{next(expression.quantities())} ({unit})"


_MIRRORED = {"<=": ">=", "<": ">", ">=": "<=", ">": "<"}


def _over_seeds(node: ast.Call) -> Median | Share:
    """The median of a quantity, or the share of seeds for which it compares with a number."""
    name = node.func.id
    example = {
        "median": "median(log_variance(relax))",
        "share": "share(probability(relax) < 0.1)",
    }[name]
    problem = f"{name}: expected a form such as {example}, got {shortened(ast.unparse(node))}"
    if len(node.args) != 1 or node.keywords:
        raise ClaimError(problem)
    (inside,) = node.args
    if name == "median":
        quantity = _expression(inside, trained=True)
        if not isinstance(quantity, Quantity):
            raise ClaimError(problem)
        return Median(quantity)
    if not isinstance(inside, ast.Compare) or len(inside.ops) != 1:
        raise ClaimError(problem)
    left, right = (_expression(x, trained=True) for x in (inside.left, inside.comparators[0]))
    symbol = _RELATIONS.get(type(inside.ops[0]), "")
    if isinstance(left, Number):
        left, symbol, right = right, _MIRRORED.get(symbol, ""), left
    if symbol not in _MIRRORED or not (isinstance(left, Quantity) and isinstance(right, Number)):
        raise ClaimError(problem)
    return Share(left, symbol, right.value)


def _quantity(node: ast.Call, trained: bool) -> Quantity:
    known = {**MEASURED, **TRAINED, **DESCENDED}
    name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
    if name not in known:
        raise ClaimError(f"unknown quantity {name!r}{suggestion(name, known)}")
    if len(node.args) != 1 or not isinstance(node.args[0], ast.Name):
        got = shortened(", ".join(map(ast.unparse, node.args))) if node.args else "nothing"
        raise ClaimError(f"{name}: expected the name of one estimator, got {got}")
    settings = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ClaimError(f"{name}: expected settings as knob=value")
        settings[keyword.arg] = _setting(keyword.arg, keyword.value)
    return Quantity(name, node.args[0].id, settings, trained or name not in MEASURED)


def _setting(knob: str, node: ast.expr) -> Any:
    if isinstance(node, ast.Name):  # a text may stand without quotes, as in YAML
        return _WORDS.get(node.id, node.id)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise ClaimError(f"{knob}: expected a plain value, got {ast.unparse(node)}") from None


def refuse_aliases(quantities: Sequence[Quantity], canonical: Callable[[str], str]) -> None:
    """Raises ClaimError for an alias: rows, which claims are read from, have the names alone."""
    for quantity in quantities:
        if (name := canonical(quantity.estimator)) != quantity.estimator:
            raise ClaimError(f"{quantity.estimator!r} is an alias of {name!r}; write {name!r}")


def refuse_ambiguous(
    quantity: Quantity, estimators: Sequence[tuple[str, Mapping[str, Any]]]
) -> None:
    """Raises ClaimError unless the quantity names exactly one of the estimators."""
    own = [knobs for name, knobs in estimators if name == quantity.estimator]
    if not own:
        names = {name for name, _ in estimators}
        raise ClaimError(
            f"{quantity.estimator!r} is not an estimator of this suite"
            f"{suggestion(quantity.estimator, names)}"
        )
    for knob in quantity.knobs:
        if knob not in own[0]:
            raise ClaimError(f"{quantity.estimator} has no knob {knob!r}{suggestion(knob, own[0])}")
    chosen = [k for k in own if all(k[name] == v for name, v in quantity.knobs.items())]
    if len(chosen) != 1:
        problem = "does not identify one estimator" if chosen else "is not in this suite"
        values = {
            knob: list(dict.fromkeys(str(knobs[knob]) for knobs in chosen or own))
            for knob in own[0]
        }
        varied = {k: v for k, v in values.items() if len(v) > 1 or k in quantity.knobs}
        listed = "; ".join(f"{k} = {', '.join(v)}" for k, v in varied.items())
        raise ClaimError(f"{quantity} {problem}, which has {listed}")


def refuse_mixture(
    quantities: Sequence[Quantity], models: bool = False, others: bool = False
) -> None:
    """Raises ClaimError for quantities that a suite does not have.

    It trains models, descends the logits of other tasks, or does neither and measures gradients.
    """
    kinds = [kind for kind, some in (("trains models", models), ("descends", others)) if some]
    available = {**(TRAINED if models else {}), **(DESCENDED if others else {})} or MEASURED
    for quantity in quantities:
        if quantity.name not in available:
            raise ClaimError(
                f"{quantity.name} is not known in a suite that "
                f"{' and '.join(kinds) or 'measures gradients'}; available: {', '.join(available)}"
            )
        if quantity.trained and not kinds:
            raise ClaimError(
                f"median and share are over the seeds of training runs, and {quantity} is measured"
            )
