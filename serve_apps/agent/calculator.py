"""Arithmetic without ``eval``: an expression is parsed as Python and only what is listed here is worked out.

Bounded in length, depth and size of numbers, so that no expression takes long: ``9**9**9`` is refused before it is
computed.
"""

import ast
import math
import operator
from collections.abc import Callable

MAX_CHARS = 200
#: Whole numbers have at most this many bits (77 digits).
MAX_BITS = 256

Number = int | float


class NotArithmetic(ValueError):
    """Why an expression has no value here."""


def _power(base: Number, exponent: Number) -> Number:
    whole = isinstance(base, int) and isinstance(exponent, int)
    if whole and int(base).bit_length() * exponent > 2 * MAX_BITS:
        raise NotArithmetic("the result is too large")
    result = base**exponent
    if isinstance(result, complex):
        raise NotArithmetic("the result is not a real number")
    return result


def _round(number: Number, digits: Number = 0) -> Number:
    if not isinstance(digits, int) or abs(digits) > 30:
        raise NotArithmetic("round takes a whole number of digits, at most 30")
    return round(number, digits) if digits else round(number)


_BINARY: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
_UNARY: dict[type[ast.unaryop], Callable[[Number], Number]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_FUNCTIONS: dict[str, Callable[..., Number]] = {
    "abs": abs,
    "ceil": math.ceil,
    "cos": math.cos,
    "exp": math.exp,
    "floor": math.floor,
    "log": math.log,
    "log10": math.log10,
    "max": max,
    "min": min,
    "round": _round,
    "sin": math.sin,
    "sqrt": math.sqrt,
    "tan": math.tan,
}
_CONSTANTS: dict[str, Number] = {"pi": math.pi, "e": math.e}

#: How people and models write operators.
_SPELLINGS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "^": "**"})  # noqa: RUF001


def evaluate(expression: str) -> Number:
    """The value of ``expression``.

    Raises:
        NotArithmetic: it is not arithmetic, has no value, or one that is too large; says which.
    """
    if len(expression) > MAX_CHARS:
        raise NotArithmetic(f"longer than {MAX_CHARS} characters")
    try:
        tree = ast.parse(expression.translate(_SPELLINGS).strip(), mode="eval")
        value = _value(tree.body)
        # What is shown must not be "inf", which a model would take for a number.
        if isinstance(value, float) and not math.isfinite(value):
            raise NotArithmetic("the result is too large")
        return value
    except (SyntaxError, RecursionError, MemoryError, TypeError) as error:
        raise NotArithmetic("not an arithmetic expression") from error
    except ZeroDivisionError as error:
        raise NotArithmetic("division by zero") from error
    except OverflowError as error:
        raise NotArithmetic("the result is too large") from error
    except NotArithmetic:
        raise
    except ValueError as error:
        raise NotArithmetic(str(error)) from error


def shown(value: Number) -> str:
    """A value as text: floats without the noise of their last digits."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.12g}"
    return str(value)


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=bool()):
            raise NotArithmetic("True and False are no numbers")
        case ast.Constant(value=int() | float() as number):
            return _bounded(number)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _bounded(_BINARY[type(op)](_value(left), _value(right)))
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _UNARY:
            return _UNARY[type(sign)](_value(operand))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _bounded(_FUNCTIONS[name](*map(_value, arguments)))
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.Name(id=name) | ast.Call(func=ast.Name(id=name)):
            raise NotArithmetic(f"{name!r} is unknown; there are {', '.join([*_FUNCTIONS, *_CONSTANTS])}")
        case _:
            raise NotArithmetic("not an arithmetic expression")


def _bounded(number: Number) -> Number:
    if isinstance(number, int) and number.bit_length() > MAX_BITS:
        raise NotArithmetic("the result is too large")
    return number
