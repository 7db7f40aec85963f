"""What the march asks of a kind of field.

A field comes as a named tuple of arrays; for it, its module registers with `implements` the four
functions that are declared here, and compiled code takes the right ones.
"""

import inspect
from collections.abc import Callable
from typing import Any

from numba import types
from numba.extending import overload


def implements(function: Callable[..., Any], kind: type) -> Callable[..., Any]:
    """Registers what one of the functions below does for fields of a kind of named tuple."""

    def register(body: Callable[..., Any]) -> Callable[..., Any]:
        body = inspect.unwrap(body)

        def chosen(field, *rest):
            named = isinstance(field, types.NamedTuple) and field.instance_class is kind
            return body if named else None

        overload(function, strict=False)(chosen)
        return body

    return register


def workspace(field):
    """Arrays that `ask` and `pull` need for one block, made once for many."""
    raise NotImplementedError


def measure(field, line, near, far):
    """Lengths of intervals where the field measures them, for one vector of rays.

    Args:
        field: the named tuple.
        line: origins and directions, six vectors.
        near: distances where the intervals begin.
        far: where they end.
    """
    raise NotImplementedError


def ask(field, scene, block, space, count):
    """Writes density and features of ``count`` samples; keeps in ``space`` what `pull` needs.

    The block's stride is STRIDE, the count whole vectors.
    """
    raise NotImplementedError


def pull(field, gradients, scene, block, space, count, cameras):
    """Takes gradients of density and features on to the field's arrays, right after `ask`.

    With ``cameras`` it also writes gradients of the samples' places.
    """
    raise NotImplementedError
