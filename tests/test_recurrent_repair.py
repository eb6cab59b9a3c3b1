"""The joint regression of recurrent nodes, in every form in which a file can hold one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import helper

from onnxtrim.bench.session import RunOptions, open_session, run
from onnxtrim.export.model_io import model_bytes
from onnxtrim.toolkit.graph.surgery import remove_units
from onnxtrim.toolkit.prepare import prepare
from onnxtrim.toolkit.repair import Repaired
from onnxtrim.toolkit.sequential import repair_in_sequence
from tests.nets import Net

Array = NDArray[Any]
INPUTS, UNITS, STEPS, SAMPLES = 6, 16, 7, 512
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}

FORMS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "lstm": ("LSTM", 1, {}),
    "lstm both": ("LSTM", 2, {"direction": "bidirectional"}),
    "lstm reverse": ("LSTM", 1, {"direction": "reverse"}),
    "gru after": ("GRU", 1, {"linear_before_reset": 1}),
    "gru before": ("GRU", 1, {"linear_before_reset": 0}),
    "gru both": ("GRU", 2, {"direction": "bidirectional", "linear_before_reset": 1}),
    "rnn": ("RNN", 1, {}),
}


def recurrent(
    path: Path, form: str, *, lengths: bool = False, initial: bool = False, last: bool = False
) -> Path:
    """A layer on the units of a product, a recurrent node, and a product on its states.

    Half of the units do nearly what the others do, so that a good repair can do without them.
    """
    operator, directions, attributes = FORMS[form]
    n, rng = Net(), np.random.default_rng(1)
    rows, half = GATES[operator] * UNITS, UNITS // 2

    def values(name: str, *shape: int, scale: float) -> str:
        return n.constant(name, (scale * rng.standard_normal(shape)).astype(np.float32))

    w = 0.5 * rng.standard_normal((directions, rows, UNITS))
    r = 0.3 * rng.standard_normal((directions, rows, UNITS))
    b = 0.2 * rng.standard_normal((directions, 2, rows))
    for gate in range(GATES[operator]):
        first = slice(gate * UNITS, gate * UNITS + half)
        second = slice(gate * UNITS + half, (gate + 1) * UNITS)
        w[:, second] = w[:, first] + 0.03 * rng.standard_normal((directions, half, UNITS))
        r[:, second], b[:, :, second] = r[:, first], b[:, :, first]
    h = n.op("Transpose", "x", perm=[1, 0, 2])
    h = n.op("MatMul", h, values("in.weight", INPUTS, UNITS, scale=0.5))
    h = n.op("Tanh", n.op("Add", h, values("in.bias", UNITS, scale=0.3)))
    arrays = {"w": w, "r": r, "b": b.reshape(directions, -1)}
    operands = [h, *(n.constant(name, a.astype(np.float32)) for name, a in arrays.items())]
    operands.append("lengths" if lengths else "")
    if initial:
        mean = n.op("ReduceMean", h, axes=[0], keepdims=1)
        starts = [
            n.op("MatMul", mean, values(f"h{number}", UNITS, UNITS, scale=0.3))
            for number in range(directions)
        ]
        operands.append(n.op("Concat", *starts, axis=0))
    names = ["", "last"] if last else ["states"]
    node = helper.make_node(operator, operands, names, "node", hidden_size=UNITS, **attributes)
    n.nodes.append(node)
    if last:  # (directions, samples, units)
        y = n.op("Transpose", "last", perm=[1, 0, 2])
        y = n.op("Reshape", y, n.ints("flat", 0, directions * UNITS))
    else:  # (steps, directions, samples, units)
        y = n.op("Transpose", "states", perm=[2, 0, 1, 3])
        y = n.op("Reshape", y, n.ints("flat", 0, 0, directions * UNITS))
    n.op("MatMul", y, values("out.weight", directions * UNITS, 4, scale=0.4), out="y")
    inputs: dict[str, Any] = {"x": ("n", STEPS, INPUTS)}
    if lengths:
        inputs["lengths"] = ("n",)
    model = n.build("y", inputs)
    for given in model.graph.input[1:]:
        given.type.tensor_type.elem_type = onnx.TensorProto.INT32
    onnx.save(model, path)
    return path


def samples(count: int = SAMPLES, *, lengths: bool = False) -> dict[str, Array]:
    rng = np.random.default_rng(2)
    found: dict[str, Array] = {"x": rng.standard_normal((count, STEPS, INPUTS)).astype(np.float32)}
    if lengths:
        found["lengths"] = rng.integers(1, STEPS + 1, count).astype(np.int32)
    return found


def error_of(original: Path, model: ir.Model, feeds: dict[str, Array]) -> float:
    """Squared error of the output over its variance."""
    one = run(open_session(original, RunOptions()), feeds, "original")[0]
    two = run(open_session(model_bytes(model), RunOptions()), feeds, "pruned")[0]
    return float(((one - two) ** 2).mean() / one.var())


@pytest.mark.parametrize(
    ("form", "options"),
    [
        *((form, {}) for form in FORMS),
        ("lstm both", {"lengths": True}),
        ("gru both", {"lengths": True}),
        ("lstm both", {"initial": True}),
        ("gru before", {"initial": True}),
        ("lstm both", {"lengths": True, "initial": True, "last": True}),
        ("gru after", {"last": True}),
    ],
)
def test_gates_are_fitted_to_what_the_original_computes(
    form: str, options: dict[str, bool], tmp_path: Path
) -> None:
    path = recurrent(tmp_path / "net.onnx", form, **options)
    feeds = samples(lengths=options.get("lengths", False))
    prepared, data = prepare(path, feeds)
    assert data is not None
    analysis = prepared.analysis
    touches = ((group, touch) for group in analysis.groups for touch in group.touches)
    group = next(group for group, touch in touches if touch.weight == ("r", 2))
    mask = np.ones(UNITS, np.bool_)
    mask[UNITS // 2 :] = False
    keep = {group.name: mask}
    batches = [{name: a[i : i + 64] for name, a in feeds.items()} for i in range(0, SAMPLES, 64)]
    test = {name: array[:200] for name, array in samples(1000, lengths="lengths" in feeds).items()}

    cut = error_of(path, remove_units(analysis.model, analysis, keep), test)
    fitted = repair_in_sequence(analysis, keep, Repaired(analysis.model.clone()), batches)
    pruned = remove_units(fitted.model, analysis, keep, fitted.new_biases)
    found = error_of(path, pruned, test)

    # A state that the beginning gives is not what its twin begins with: that part stays.
    assert found < 0.1 * cut, (cut, found)
