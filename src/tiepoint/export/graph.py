"""An ONNX graph written as arithmetic on values: `(a + 1) * b` adds two nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Kind = Literal["float", "int", "bool"]
"""Type of a value: float32, int64 or bool."""

DTYPES: Mapping[Kind, Any] = {"float": np.float32, "int": np.int64, "bool": np.bool_}

OPSET = 17
"""Version of the operators: old enough for runtimes of 2022."""

IR_VERSION = 8
"""Version of the file format that goes with `OPSET`."""


@dataclass(frozen=True, eq=False)
class Value:
    """An array that the graph computes.

    Python numbers become constants of its type. Division of integers rounds down, if none is
    negative.

    Attributes:
        graph: The graph that computes it.
        name: Its name in the file.
        kind: Type of its elements.
    """

    graph: Graph
    name: str
    kind: Kind

    def __add__(self, other: Operand) -> Value:
        return self._with("Add", other)

    def __sub__(self, other: Operand) -> Value:
        return self._with("Sub", other)

    def __rsub__(self, other: float) -> Value:
        return self._constant(other) - self

    def __mul__(self, other: Operand) -> Value:
        return self._with("Mul", other)

    def __truediv__(self, other: Operand) -> Value:
        return self._with("Div", other)

    def __floordiv__(self, other: Operand) -> Value:
        assert self.kind == "int"
        return self._with("Div", other)

    def __mod__(self, other: Operand) -> Value:
        return self._with("Mod", other)

    def __and__(self, other: Value) -> Value:
        return self._with("And", other)

    def __or__(self, other: Value) -> Value:
        return self._with("Or", other)

    def __invert__(self) -> Value:
        return self.graph.node("Not", self)

    def above(self, other: Operand) -> Value:
        """Whether elements are greater, bool."""
        return self._with("Greater", other, "bool")

    def below(self, other: Operand) -> Value:
        """Whether elements are less, bool."""
        return self._with("Less", other, "bool")

    def equals(self, other: Operand) -> Value:
        """Whether elements are equal, bool."""
        return self._with("Equal", other, "bool")

    def minimum(self, other: Operand) -> Value:
        """The lower of two values, element by element."""
        return self._with("Min", other)

    def maximum(self, other: Operand) -> Value:
        """The higher of two values, element by element."""
        return self._with("Max", other)

    def clip(self, low: float, high: float) -> Value:
        """Values in low..high."""
        return self.graph.node("Clip", self, self._constant(low), self._constant(high))

    def where(self, chosen: Value, other: Operand = 0) -> Value:
        """Elements of this value where `chosen`, else those of `other`."""
        return self.graph.node("Where", chosen, self, self._operand(other), kind=self.kind)

    def to(self, kind: Kind) -> Value:
        """Convert the type."""
        codes = {"float": 1, "int": 7, "bool": 9}  # onnx.TensorProto
        return self.graph.node("Cast", self, kind=kind, to=codes[kind])

    def size(self, axis: int) -> Value:
        """Length along an axis, int64, 1 element."""
        shape = self.graph.node("Shape", self, kind="int")
        return self.graph.node("Gather", shape, np.array([axis], np.int64))

    def reshape(self, *lengths: int | Value) -> Value:
        """Another shape; lengths are numbers, -1 for the rest, or values of 1 element."""
        if all(isinstance(length, int) for length in lengths):
            return self.graph.node("Reshape", self, np.array(lengths, np.int64))
        parts = [
            length if isinstance(length, Value) else self.graph.constant([length])
            for length in lengths
        ]
        return self.graph.node("Reshape", self, concatenate(parts, axis=0))

    def transpose(self, *axes: int) -> Value:
        """Axes in another order."""
        return self.graph.node("Transpose", self, perm=list(axes))

    def take(self, index: Value, axis: int) -> Value:
        """Elements along an axis; the axis is replaced by those of the index."""
        return self.graph.node("Gather", self, index, axis=axis)

    def slice(self, axis: int, start: int | Value, end: int | Value) -> Value:
        """Elements start..end along an axis, `end` excluded."""
        ends = [
            one if isinstance(one, Value) else self.graph.constant([one]) for one in (start, end)
        ]
        return self.graph.node("Slice", self, *ends, np.array([axis], np.int64))

    def sum(self, *axes: int, keep: bool = False) -> Value:
        """Sum over axes."""
        return self.graph.node("ReduceSum", self, np.array(axes, np.int64), keepdims=int(keep))

    def pad(self, axes: Sequence[int], px: int, mode: str = "constant") -> Value:
        """Add elements at both ends of axes of 4: zeros, or with mode "edge" the outermost ones."""
        ends = [px if axis in axes else 0 for axis in range(4)]
        return self.graph.node("Pad", self, np.array(ends * 2, np.int64), mode=mode)

    def _with(self, op: str, other: Operand, kind: Kind | None = None) -> Value:
        return self.graph.node(op, self, self._operand(other), kind=kind or self.kind)

    def _operand(self, other: Operand) -> Value:
        return other if isinstance(other, Value) else self._constant(other)

    def _constant(self, number: float | np.floating[Any] | NDArray[Any]) -> Value:
        return self.graph.constant(np.asarray(number, DTYPES[self.kind]))


Operand = Value | float | np.floating[Any] | NDArray[Any]


class Graph:
    """Nodes and constants in the order of computation.

    Attributes:
        inputs: Descriptions of the inputs, as `onnx.helper` makes them.
    """

    def __init__(self) -> None:
        self.inputs: list[Any] = []
        self._nodes: list[tuple[str, list[str], list[str], dict[str, Any]]] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Value] = {}
        self._arrays: dict[str, NDArray[Any]] = {}
        self._scope = ""

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix of the names of nodes, by which viewers group them."""
        before, self._scope = self._scope, f"{self._scope}{name}/"
        yield
        self._scope = before

    def input(self, name: str, kind: Kind, shape: Sequence[int | str]) -> Value:
        """Add an input; axes are lengths, or names of lengths that may vary."""
        self.inputs.append(_description(name, kind, shape))
        return Value(self, name, kind)

    def constant(self, values: ArrayLike) -> Value:
        """Store an array or a number, once for equal ones."""
        array = np.asarray(values)
        kind: Kind = {"f": "float", "i": "int", "b": "bool"}[array.dtype.kind]  # type: ignore[assignment]
        array = np.ascontiguousarray(array, DTYPES[kind]).reshape(array.shape)
        key = (kind, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            self._arrays[name] = array
            self._constants[key] = Value(self, name, kind)
        return self._constants[key]

    def node(
        self, op: str, *inputs: Value | NDArray[Any], kind: Kind | None = None, **attributes: Any
    ) -> Value:
        """Add a node of one output, by default of the type of its first input."""
        return self.nodes(op, *inputs, kinds=[kind or self._value(inputs[0]).kind], **attributes)[0]

    def nodes(
        self, op: str, *inputs: Value | NDArray[Any], kinds: Sequence[Kind], **attributes: Any
    ) -> list[Value]:
        """Add a node with an output of each kind."""
        number = len(self._nodes)
        names = [f"{self._scope}{op}_{number}_{index}" for index in range(len(kinds))]
        values = [self._value(one).name for one in inputs]
        self._nodes.append((op, values, names, attributes))
        return [Value(self, *one) for one in zip(names, kinds, strict=True)]

    def arange(self, length: Value) -> Value:
        """0, 1, 2, ..., int64.

        Args:
            length: 1 element.
        """
        zero, one = self.constant(0), self.constant(1)
        return self.node("Range", zero, length.reshape(), one)

    def model(
        self, outputs: Mapping[str, tuple[Value, Sequence[int | str]]], notes: Mapping[str, str]
    ) -> Any:
        """The whole graph as `onnx.ModelProto`, checked.

        Args:
            outputs: Name -> value and shape, see `input`; in the order of the file.
            notes: Metadata of the file.
        """
        import onnx
        from onnx import helper, numpy_helper

        descriptions = []
        for name, (value, shape) in outputs.items():
            self._nodes.append(("Identity", [value.name], [name], {}))
            descriptions.append(_description(name, value.kind, shape))
        nodes = [
            helper.make_node(op, inputs, names, name=names[0].removesuffix("_0"), **attributes)
            for op, inputs, names, attributes in self._nodes
        ]
        arrays = [numpy_helper.from_array(array, name) for name, array in self._arrays.items()]
        graph = helper.make_graph(nodes, "tiepoint", self.inputs, descriptions, arrays)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="tiepoint",
        )
        helper.set_model_props(model, dict(notes))
        onnx.checker.check_model(model, full_check=True)
        return model

    def _value(self, value: Value | NDArray[Any]) -> Value:
        return value if isinstance(value, Value) else self.constant(value)


def concatenate(values: Sequence[Value], axis: int) -> Value:
    """Values one after the other along an axis."""
    if len(values) == 1:
        return values[0]
    return values[0].graph.node("Concat", *values, axis=axis)


def rows_of(values: Value, index: Value) -> Value:
    """B N C and an index B K -> B K C, a choice of rows of each image.

    Without the operator `GatherND`, which few runtimes have for batches.
    """
    B, N, C = (values.size(axis) for axis in range(3))
    first = values.graph.arange(B).reshape(-1, 1) * N  # B 1
    return values.reshape(-1, C).take(index + first, axis=0)  # B K C


def _description(name: str, kind: Kind, shape: Sequence[int | str]) -> Any:
    from onnx import TensorProto, helper

    types = {"float": TensorProto.FLOAT, "int": TensorProto.INT64, "bool": TensorProto.BOOL}
    return helper.make_tensor_value_info(name, types[kind], list(shape))
