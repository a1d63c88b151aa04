"""Records: NamedTuples of integers, one-dimensional arrays of them and floats, which kernels read where they lie.

All that a kernel is told of a Problem comes as one array of int64. As arguments of their own, the fields would cost a
call 0.1 us apiece, and each function that passes them on would be compiled with a hundred arguments.
"""

from __future__ import annotations

from typing import Any, get_type_hints

import numba.extending
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types, typing
from numba.np import arrayobj

from ...method import Array
from .ir import INT64, at, data, intrinsic

# numba's annotations know little of its types.
_types: Any = types
_typing: Any = typing
_extending: Any = numba.extending
_cgutils: Any = cgutils
_arrayobj: Any = arrayobj

KINDS = {int: types.intp, float: types.float64, Array: _types.Array(types.int64, 1, "C")}


def packed(*records: Any) -> Array:
    """Records as one array of int64: where each begins; and of each its fields, then its arrays, lengths first. An
    array's field tells where it lies, from the record's begin on.
    """
    starts: list[Any] = []
    parts: list[Any] = []
    end = len(records)
    for record in records:
        starts.append(end)
        fields: list[Any] = []
        arrays: list[Any] = []
        behind = len(record)
        for value in record:
            if isinstance(value, np.ndarray):
                fields.append(behind)
                arrays += [[len(value)], value]
                behind += 1 + len(value)
            else:
                fields.append(np.float64(value).view(np.int64) if isinstance(value, float) else value)
        parts += [fields, *arrays]
        end += behind
    return np.concatenate([np.asarray(part, np.int64) for part in (starts, *parts)])


class Fields(_types.Type):
    """numba's type of a record that lies in memory: a pointer to its first field."""

    def __init__(self, record: Any) -> None:
        super().__init__(name=f"Fields({record.__module__}.{record.__qualname__})")
        self.names = record._fields
        self.kinds = {name: KINDS[hint] for name, hint in get_type_hints(record).items()}


@_extending.register_model(Fields)
class _FieldsModel(_extending.models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, INT64.as_pointer())


@intrinsic
def record(typing_context: Any, kind: Any, integers: Any, number: Any) -> Any:
    """The record of a NamedTuple's class that is that number of those in an array."""
    signature = Fields(kind.instance_class)(kind, integers, types.intp)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, place, index = data(context, builder, signature.args, args)
        return at(builder, place, _constant(builder, at(builder, place, index)))

    return signature, generate


@_extending.infer_getattr
class _FieldTyping(_typing.templates.AttributeTemplate):
    key = Fields

    def generic_resolve(self, value: Any, name: str) -> Any:
        """The type of a field."""
        return value.kinds.get(name)


def _field(context: Any, builder: Any, kind: Any, value: Any, name: str) -> Any:
    """A field's value."""
    found, wanted = _constant(builder, at(builder, value, INT64(kind.names.index(name)))), kind.kinds[name]
    if wanted == types.float64:
        return builder.bitcast(found, ir.DoubleType())
    if wanted == types.intp:
        return found
    place = at(builder, value, found)
    array = context.make_array(wanted)(context, builder)
    shape, strides = (_cgutils.pack_array(builder, [size]) for size in (_constant(builder, place), INT64(8)))
    first = at(builder, place, INT64(1))
    _arrayobj.populate_array(array, data=first, shape=shape, strides=strides, itemsize=INT64(8), meminfo=None)
    return array._getvalue()


_extending.lower_getattr_generic(Fields)(_field)


def _constant(builder: Any, address: Any) -> Any:
    """What lies at an address and never changes."""
    found = builder.load(address)
    found.set_metadata("invariant.load", builder.module.add_metadata([]))
    return found
