"""Conditions on the metadata of an index, such as `age >= 65 and sex == 'female'`, to the rows that meet them.

    age >= 65                      18 <= age < 40                 age is not None
    sex == 'female'                sex in ('female', 'male')      record_id != 'r17'
    'NORM' in labels               'infarct' in text              not ('AFIB' in labels or age < 18)

The words are Python's, but nothing is run: the condition is parsed, and only what stands above is understood. What is
not known (no age, no sex) meets no comparison, and no comparison's denial either: ask `age is None`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LONGEST = 2000  # characters: what is nested deeper than Python's parser bears is longer
_COMPARISONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
_EXAMPLE = "expected something like \"age >= 65 and sex == 'female' and 'NORM' in labels\""


def rows_where(metadata: pa.Table, condition: str) -> np.ndarray:
    """`(M,)` int64: the rows of `metadata` that meet a condition, ascending.

    Raises ValueError for a condition that is not understood, names no column, or compares what cannot be compared.

    >>> rows_where(pa.table({"age": [70.0, None, 20.0], "sex": ["female", "male", None]}), "age > 60 or sex is None")
    array([0, 2])
    """
    if len(condition) > LONGEST:
        raise ValueError(f"where: expected at most {LONGEST} characters, got {len(condition)}.")
    try:
        tree = ast.parse(condition.strip(), mode="eval").body
        met = _Reader(metadata).condition(tree)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"where: {_EXAMPLE}, got {condition!r}.") from error
    return np.flatnonzero(pc.fill_null(met, False).to_numpy(zero_copy_only=False))


class _Reader:
    """Reads a parsed condition; each part becomes one boolean for each row, null where it is not known."""

    def __init__(self, metadata: pa.Table) -> None:
        self._metadata = metadata

    def condition(self, node: ast.expr) -> pa.Array:
        if isinstance(node, ast.BoolOp):
            join = pc.and_kleene if isinstance(node.op, ast.And) else pc.or_kleene
            return _folded(join, [self.condition(value) for value in node.values])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return pc.invert(self.condition(node.operand))
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            return _folded(pc.and_kleene, [self._compared(sides[i], op, sides[i + 1]) for i, op in enumerate(node.ops)])
        raise _not_understood(node)

    def _compared(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> pa.Array:
        if isinstance(operator, ast.In | ast.NotIn):
            found = self._contained(left, right)
            return found if isinstance(operator, ast.In) else pc.invert(found)
        if isinstance(operator, ast.Is | ast.IsNot):
            return self._known_or_not(left, operator, right)
        if not isinstance(left, ast.Name):
            left, right = right, left
            operator = _TURNED.get(type(operator), type(operator))()
        name, column = self._column(left)
        value = _value(right)
        _check_type(name, column.type, value)
        return _COMPARISONS[type(operator)](column, pa.scalar(value))

    def _contained(self, left: ast.expr, right: ast.expr) -> pa.Array:
        if isinstance(left, ast.Name):  # sex in ('female', 'male')
            name, column = self._column(left)
            if not isinstance(right, ast.Tuple | ast.List | ast.Set) or not right.elts:
                raise _not_understood(right)
            values = [_value(element) for element in right.elts]
            for value in values:
                _check_type(name, column.type, value)
            isin = pc.is_in(column, value_set=pa.array(values).cast(column.type))
            return pc.if_else(pc.is_valid(column), isin, pa.scalar(None, pa.bool_()))
        name, column = self._column(right)  # 'NORM' in labels
        value = _value(left)
        if not isinstance(value, str):
            raise ValueError(f"where: expected a text in {name}, got {value!r}.")
        if pa.types.is_list(column.type):
            return _in_lists(column, value)
        _check_type(name, column.type, value)
        return pc.match_substring(column, value, ignore_case=True)

    def _known_or_not(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> pa.Array:
        if not (isinstance(right, ast.Constant) and right.value is None):
            raise _not_understood(right)
        _, column = self._column(left)
        return pc.is_null(column) if isinstance(operator, ast.Is) else pc.is_valid(column)

    def _column(self, node: ast.expr) -> tuple[str, pa.Array]:
        if not isinstance(node, ast.Name):
            raise _not_understood(node)
        if node.id not in self._metadata.column_names:
            raise ValueError(
                f"where: expected one of the columns {', '.join(self._metadata.column_names)}, got {node.id!r} "
                "(texts stand in quotes; patient_id and text are there where the index was built with them)."
            )
        return node.id, self._metadata[node.id].combine_chunks()


_TURNED: dict[type, type] = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}


def _folded(join: Callable[[Any, Any], Any], parts: list[pa.Array]) -> pa.Array:
    met = parts[0]
    for part in parts[1:]:
        met = join(met, part)
    return met


def _in_lists(column: pa.ListArray, value: str) -> pa.Array:
    """For each row, whether `value` is one of its list; a row without a list has none."""
    rows = pc.list_parent_indices(column).filter(pc.equal(pc.list_flatten(column), value))
    found = np.zeros(len(column), dtype=bool)
    found[rows.to_numpy()] = True
    return pa.array(found)


def _value(node: ast.expr) -> str | float | int:
    """A text or number that stands in a condition."""
    sign = -1 if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) else 1
    constant = node.operand if isinstance(node, ast.UnaryOp) and sign == -1 else node
    value = constant.value if isinstance(constant, ast.Constant) else None
    if type(value) in (int, float):
        return sign * value
    if isinstance(value, str) and sign == 1:
        return value
    raise _not_understood(node)


def _check_type(name: str, kind: pa.DataType, value: str | float | int) -> None:
    if pa.types.is_list(kind):
        raise ValueError(f"where: {name} holds several texts each: expected '...' in {name}.")
    if pa.types.is_string(kind) != isinstance(value, str):
        wanted = "a text in quotes" if pa.types.is_string(kind) else "a number"
        raise ValueError(f"where: {name}: expected {wanted}, got {value!r}.")


def _not_understood(node: ast.expr) -> ValueError:
    return ValueError(f"where: {_EXAMPLE}, got {ast.unparse(node)!r}, which is not understood here.")
