"""Short vectors as values inside numba functions: one instruction for LANES numbers.

A compiled function holds many samples at once in ``floats`` (LANES float32 numbers) and ``ints``
(LANES int32 numbers) instead of hoping that a loop will be vectorised:

    @compiled
    def scale(a, b, k):  # b = k a
        k = splat(k)
        for i in range(0, len(a), LANES):
            store(b, i, k * load(a, i))

Vectors know ``+ - *`` and what follows. Positions in arrays are flat, counted in elements and not
checked: an array given here is contiguous and long enough.
"""

import functools
import hashlib
import inspect
import operator
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import llvmlite.binding as llvm
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, config
from numba.core.datamodel import models
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, register_model

LANES = 16 if llvm.get_host_cpu_features().get("avx512f") else 8
"""Numbers in a vector: as many as the widest registers hold, at least 8."""

_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FLOATS, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)

_RULES: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


def compiled(function: Callable[..., Any]) -> Any:
    """Compiles an entry point: called from Python, without its lock, kept on disk."""
    with patch.object(config, "CACHE_DIR", str(machine_code())):
        return njit(inspect.unwrap(function), cache=True, **_RULES)


def inlined(function: Callable[..., Any]) -> Any:
    """Compiles a part of others into each of them."""
    rules = {"forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return njit(inspect.unwrap(function), **rules, **_RULES)


def _intrinsic(function: Callable[..., Any]) -> Any:
    return intrinsic(inspect.unwrap(function))


@functools.cache
def machine_code() -> Path:
    """Where compiled entry points are kept: one folder for each state of this package's sources.

    Numba itself looks only whether the entry point's own file has changed.
    """
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = os.environ.get("NUMBA_CACHE_DIR") or caches / "unflat"
    return Path(folder) / f"kernels-{digest.hexdigest()[:16]}"


class _Vector(types.Type):
    """The type of vectors of one kind of number."""


class _Floats(_Vector):
    pass


class _Ints(_Vector):
    pass


floats = _Floats(f"floats{LANES}")
ints = _Ints(f"ints{LANES}")


@register_model(_Floats)
class _FloatsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any):
        super().__init__(manager, kind, _FLOATS)


@register_model(_Ints)
class _IntsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any):
        super().__init__(manager, kind, _INTS)


def _operator(symbol: Any, kind: _Vector, instruction: str) -> None:
    """Makes an operator between two vectors of a kind one instruction."""

    class Template(ConcreteTemplate):
        cases = [signature(kind, kind, kind)]  # noqa: RUF012  numba's own way

    infer_global(symbol)(Template)  # pyright: ignore[reportOptionalCall]

    @lower_builtin(symbol, kind, kind)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args)


for _symbol, _name in ((operator.add, "add"), (operator.sub, "sub"), (operator.mul, "mul")):
    _operator(_symbol, floats, "f" + _name)
    _operator(_symbol, ints, _name)
_operator(operator.truediv, floats, "fdiv")


def _splat(builder: Any, value: Any, vector: Any) -> Any:
    empty = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(empty, value, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, empty, ir.Constant(_INTS, [0] * LANES))


def _call(builder: Any, name: str, result: Any, args: Any) -> Any:
    kind = ir.FunctionType(result, [value.type for value in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def _one(result: Any, kind: Any, emit: Callable[..., Any]) -> Any:
    """A function of one value whose instructions ``emit(builder, value)`` writes."""

    def typed(typing, a):
        return result(kind), lambda context, builder, sig, args: emit(builder, *args)

    return _intrinsic(typed)


def _two(emit: Callable[..., Any]) -> Any:
    """The same of two vectors of floats."""

    def typed(typing, a, b):
        return floats(floats, floats), lambda context, builder, sig, args: emit(builder, *args)

    return _intrinsic(typed)


def _llvm(name: str) -> Callable[..., Any]:
    """Calls LLVM's own function of vectors of floats."""
    return lambda builder, *args: _call(builder, f"llvm.{name}.v{LANES}f32", _FLOATS, args)


splat = _one(floats, types.float32, lambda builder, value: _splat(builder, value, _FLOATS))
"""A float32 number in every lane."""
splat_int = _one(ints, types.int32, lambda builder, value: _splat(builder, value, _INTS))
"""An int32 number in every lane."""
magnitude = _one(floats, floats, _llvm("fabs"))
"""Absolute values."""
floor = _one(floats, floats, _llvm("floor"))
"""The largest whole numbers not above."""
root = _one(floats, floats, _llvm("sqrt"))
"""Square roots."""
smaller = _two(lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b))
"""The smaller of two in each lane."""
larger = _two(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))
"""The larger of two in each lane."""
truncated = _one(ints, floats, lambda builder, value: builder.fptosi(value, _INTS))
"""Whole parts."""
converted = _one(floats, ints, lambda builder, value: builder.sitofp(value, _FLOATS))
"""Whole numbers as float32."""
bits = _one(ints, floats, lambda builder, value: builder.bitcast(value, _INTS))
"""The bits of float32 numbers as whole numbers."""
from_bits = _one(floats, ints, lambda builder, value: builder.bitcast(value, _FLOATS))
"""The float32 numbers of bits."""
to_exponent = _one(
    ints, ints, lambda builder, value: builder.shl(value, ir.Constant(_INTS, [23] * LANES))
)
"""Shifted to where float32 has its exponent."""
total = _one(
    types.float32,
    floats,
    lambda builder, value: _sum(builder, value),
)
"""The sum of all lanes."""


def _sum(builder: Any, value: Any) -> Any:
    """Halves are added until one number is left: the same order on every machine."""
    width = LANES
    while width > 1:
        width //= 2
        order = [(lane + width) % LANES for lane in range(LANES)]
        other = builder.shuffle_vector(value, value, ir.Constant(_INTS, order))
        value = builder.fadd(value, other)
    return builder.extract_element(value, ir.Constant(_INT, 0))


@_intrinsic
def fma(typing, a, b, c):
    """A times b plus c, rounded once where the processor can."""

    def make(context, builder, sig, args):
        return _llvm("fmuladd")(builder, *args)

    return floats(floats, floats, floats), make


@_intrinsic
def where_less(typing, a, b, yes, no):
    """``yes`` in lanes where a < b, else ``no`` (also where one is not a number)."""

    def make(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered("<", *args[:2]), *args[2:])

    return floats(floats, floats, floats, floats), make


def _address(context: Any, builder: Any, array_type: Any, array: Any, place: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [place])


@_intrinsic
def load(typing, array, place):
    """The vector that begins at a place of an array of float32, int32 or bfloat16 (as int16)."""
    whole = array.dtype == types.int32
    half = array.dtype == types.int16

    def make(context, builder, sig, args):
        place = _address(context, builder, sig.args[0], *args)
        if half:  # bfloat16 is the upper half of float32
            shorts = ir.VectorType(ir.IntType(16), LANES)
            short = builder.load(builder.bitcast(place, shorts.as_pointer()), align=2)
            upper = builder.shl(builder.zext(short, _INTS), ir.Constant(_INTS, [16] * LANES))
            return builder.bitcast(upper, _FLOATS)
        vector = _INTS if whole else _FLOATS
        return builder.load(builder.bitcast(place, vector.as_pointer()), align=4)

    return (ints if whole else floats)(array, types.intp), make


@_intrinsic
def store(typing, array, place, value):
    """Writes a vector from a place of an array on."""

    def make(context, builder, sig, args):
        place = _address(context, builder, sig.args[0], *args[:2])
        builder.store(args[2], builder.bitcast(place, args[2].type.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), make


@_intrinsic
def peek(typing, array, place):
    """One number of an array, its place not checked."""

    def make(context, builder, sig, args):
        return builder.load(_address(context, builder, sig.args[0], *args))

    return array.dtype(array, types.intp), make


@_intrinsic
def transpose(typing, source, place, stride, target, to, step):
    """Turns LANES rows of LANES numbers, ``stride`` apart, into columns, ``step`` apart."""

    def make(context, builder, sig, args):
        source, place, stride, target, to, step = args
        rows = []
        for _ in range(LANES):
            row = _address(context, builder, sig.args[0], source, place)
            rows.append(builder.load(builder.bitcast(row, _FLOATS.as_pointer()), align=4))
            place = builder.add(place, stride)
        for column in _transposed(builder, rows):
            at = _address(context, builder, sig.args[3], target, to)
            builder.store(column, builder.bitcast(at, _FLOATS.as_pointer()), align=4)
            to = builder.add(to, step)
        return context.get_dummy_value()

    place_type = types.intp
    return types.void(source, place_type, place_type, target, place_type, place_type), make


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Swaps the off-diagonal squares of 1, 2, 4, ... lanes of every pair of rows."""
    side = 1
    while side < LANES:
        upper, lower = [], []
        for lane in range(LANES):
            first = lane & side == 0
            upper.append(lane if first else LANES + lane - side)
            lower.append(lane + side if first else LANES + lane)
        for row in range(LANES):
            if row & side == 0:
                pair = rows[row], rows[row + side]
                rows[row] = builder.shuffle_vector(*pair, ir.Constant(_INTS, upper))
                rows[row + side] = builder.shuffle_vector(*pair, ir.Constant(_INTS, lower))
        side *= 2
    return rows
