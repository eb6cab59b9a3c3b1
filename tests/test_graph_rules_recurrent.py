"""Rules of recurrent nets and attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.rule_case import Case, Operand, ints, live, one, weight
from tests.rule_judge import bundles, judge, ready

X = live(3, 2, 5)  # time, batch, features; seven hidden units
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
LENGTHS = np.array([3, 2], np.int32)
BOTH = {"direction": "bidirectional"}


def recurrent(operator: str) -> list[Case]:
    gates = GATES[operator]

    def weights(directions: int = 1) -> dict[str, Operand]:
        return {
            "w": X,
            "k": weight(directions, gates * 7, 5),
            "r": weight(directions, gates * 7, 7),
        }

    def bias(directions: int = 1) -> dict[str, Operand]:
        return {"b": weight(directions, 2 * gates * 7)}

    zero: dict[str, Operand] = {"f": np.zeros((1, 2, 7), np.float32)}
    state: dict[str, Operand] = {"f": weight(1, 2, 7)}
    states: dict[str, Operand] = {"f": weight(2, 2, 7)}
    if operator == "LSTM":
        zero["g"], state["g"] = np.zeros((1, 2, 7), np.float32), weight(1, 2, 7)
        states["g"] = weight(2, 2, 7)
    plain = "w1 v2=2; w2 k2=5; k1 r1 r2 b1 v3=7"
    begun = plain.replace("w1", "w1 f1").replace("b1", "b1 f2")
    if operator == "LSTM":
        begun = begun.replace("f1", "f1 g1").replace("f2", "f2 g2")
    ended = "w1 v1=2; w2 k2=5; k1 r1 r2 b1 v2=7"
    all_outputs = "w1 v2 va1=2; w2 k2=5; k1 r1 r2 b1 v3 va2=7"
    cells = "w1 v2 va1 vb1=2; w2 k2=5; k1 r1 r2 b1 v3 va2 vb2=7"
    rows: list[tuple[str, dict[str, Operand], str, dict[str, Any]]] = [
        ("forward", {**weights(), **bias()}, plain, {}),
        ("no bias", weights(), plain.replace(" b1", ""), {}),
        ("backward", {**weights(), **bias()}, plain, {"direction": "reverse"}),
        ("both ways", {**weights(2), **bias(2)}, plain, BOTH),
        ("both ways, no bias", weights(2), plain.replace(" b1", ""), BOTH),
        ("zero states", {**weights(), **bias(), "l": None, **zero}, plain, {}),
        ("states", {**weights(), **bias(), "l": None, **state}, begun, {}),
        ("states both ways", {**weights(2), **bias(2), "l": None, **states}, begun, BOTH),
        ("lengths", {**weights(), **bias(), "l": LENGTHS},
         plain.replace("w1 v2", "w1 l0 v2"), {}),
        ("lengths both ways", {**weights(2), **bias(2), "l": LENGTHS},
         plain.replace("w1 v2", "w1 l0 v2"), BOTH),
        ("lengths and states", {**weights(), **bias(), "l": LENGTHS, **state},
         begun.replace(" v2", " l0 v2", 1), {}),
        ("last state", {**weights(), **bias()}, ended, {"outputs": (1,)}),
        ("last states both ways", {**weights(2), **bias(2)}, all_outputs,
         {"outputs": (0, 1), **BOTH}),
        ("opset 9", {**weights(), **bias()}, plain, {"opset": 9}),
    ]  # fmt: skip
    if operator == "GRU":
        rows += [
            ("linear before reset", {**weights(), **bias()}, plain, {"linear_before_reset": 1}),
            ("linear before reset, both ways", {**weights(2), **bias(2)}, plain,
             {"linear_before_reset": 1, **BOTH}),
        ]  # fmt: skip
    if operator == "LSTM":
        peep = plain.replace("b1", "b1 p1")
        rows += [
            ("peepholes", {**weights(), **bias(), "l": None, "f": None, "g": None,
                           "p": weight(1, 21)}, peep, {}),
            ("peepholes both ways", {**weights(2), **bias(2), "l": None, "f": None, "g": None,
                                     "p": weight(2, 21)}, peep, BOTH),
            ("everything", {**weights(2), **bias(2), "l": LENGTHS, **states, "p": weight(2, 21)},
             begun.replace(" v2", " l0 v2", 1).replace("b1", "b1 p1"), BOTH),
            ("one state of two", {**weights(), **bias(), "l": None, "f": weight(1, 2, 7)},
             "w1 f1 v2=2; w2 k2=5; k1 r1 r2 b1 f2 v3=7", {}),
            ("cells", {**weights(), **bias()}, cells, {"outputs": (0, 1, 2)}),
            ("cells alone", {**weights(2), **bias(2)}, ended, {"outputs": (2,), **BOTH}),
            ("coupled gates", {**weights(), **bias()}, plain, {"input_forget": 1}),
        ]  # fmt: skip
    return [one(operator, *row[:3], hidden_size=7, **row[3]) for row in rows]


def layout(operator: str) -> Case:
    gates = GATES[operator]
    operands: dict[str, Operand] = {
        "w": live(2, 3, 5), "k": weight(1, gates * 7, 5), "r": weight(1, gates * 7, 7),
        "b": weight(1, 2 * gates * 7), "l": None, "f": weight(2, 1, 7),
    }  # fmt: skip
    groups = "w0 f0 v0 va0=2; w2 k2=5; k1 r1 r2 b1 f2 v3 va2=7"
    shapes = ((2, 3, 1, 7), (2, 1, 7))
    return one(operator, "batch first", operands, groups, hidden_size=7, layout=1, shapes=shapes,
               outputs=(0, 1))  # fmt: skip


RECURRENT = [case for name in GATES for case in recurrent(name)]

QKV = {"w": live(2, 4, 3, 6), "u": live(2, 4, 5, 6), "z": live(2, 4, 5, 7)}
FEWER = {"w": live(2, 6, 3, 4), "u": live(2, 3, 5, 4), "z": live(2, 3, 5, 7)}
FEWEST = "w0 u0 z0 v0=2; w1 u1 z1 v1=3; w3 u3=4; z3 v3=7"
FOUR = "w0 u0 z0 v0=2; w1 u1 z1 v1=4; w3 u3=6; z3 v3=7"
PACKED = {"w": live(2, 3, 4 * 6), "u": live(2, 5, 4 * 6), "z": live(2, 5, 4 * 7)}
PACKED_FEWER = {"w": live(2, 3, 6 * 4), "u": live(2, 5, 3 * 4), "z": live(2, 5, 3 * 7)}
HEADS = {"q_num_heads": 4, "kv_num_heads": 4}
PASTS = {"p": live(2, 4, 2, 6), "t": live(2, 4, 2, 7)}
FEWER_PASTS = {"p": live(2, 3, 2, 4), "t": live(2, 3, 2, 7)}
MASK = {"m": live(3, 5)}
SHARED = {"shared": ("m",)}
CAUSE = {"is_causal": 1}
ATTENTION = [
    one("Attention", title, operands, groups, inner=inner, opset=23, **more)
    for title, operands, groups, inner, more in (
        ("four axes", QKV, FOUR, "", {}),
        ("causal", {**QKV, "w": live(2, 4, 5, 6)}, FOUR, "", CAUSE),
        ("scale and cap", QKV, FOUR, "", {"scale": 0.7, "softcap": 2.0}),
        ("grouped queries", FEWER, "w0 u0 z0 v0=2; w1 u1 z1 v1=3; w3 u3=4; z3 v3=7", "", {}),
        ("a mask", {**FEWER, **MASK}, FEWEST, "", SHARED),
        ("a boolean mask", {**QKV, "m": np.tri(3, 5, dtype=np.bool_)}, FOUR, "", {}),
        ("a mask per head", {**FEWER, "m": live(6, 3, 5)}, FEWEST.replace("z1", "z1 m0"), "",
         SHARED),
        ("a mask per sample", {**QKV, "m": weight(2, 1, 3, 5)}, FOUR.replace("z0", "z0 m0"), "",
         {}),
        ("a mask of all four axes", {**FEWER, "m": weight(2, 6, 3, 5)},
         "w0 u0 z0 m0 v0=2; w1 u1 z1 m1 v1=3; w3 u3=4; z3 v3=7", "", {}),
        ("a shared mask of all four axes", {**FEWER, "m": live(2, 6, 3, 5)},
         "w0 u0 z0 m0 v0=2; w1 u1 z1 m1 v1=3; w3 u3=4; z3 v3=7", "", SHARED),
        ("a cache", {**QKV, "m": None, **PASTS},
         "w0 u0 z0 p0 t0 v0 va0 vb0=2; w1 u1 z1 p1 t1 v1 va1 vb1=4; w3 u3 p3 va3=6;"
         " z3 t3 v3 vb3=7", "", {"outputs": (0, 1, 2)}),
        ("a cache, grouped queries", {**FEWER, "m": None, **FEWER_PASTS},
         "w0 u0 z0 p0 t0 v0 va0 vb0=2; w1 u1 z1 p1 t1 v1 va1 vb1=3; w3 u3 p3 va3=4;"
         " z3 t3 v3 vb3=7", "", {"outputs": (0, 1, 2)}),
        ("all outputs", FEWER, "w0 u0 z0 v0 va0 vb0 vc0=2; w1 u1 z1 v1 va1 vb1 vc1=3;"
         " w3 u3 va3=4; z3 v3 vb3=7", "", {"outputs": (0, 1, 2, 3),
         "shapes": ((2, 6, 3, 7), (2, 3, 5, 4), (2, 3, 5, 7), (2, 6, 3, 5))}),
        ("its scores", QKV, "w0 u0 z0 v0 va0=2; w1 u1 z1 v1 va1=4; w3 u3=6; z3 v3=7", "",
         {"outputs": (0, 3)}),
        ("scores of grouped queries", FEWER,
         "w0 u0 z0 v0 va0=2; w1 u1 z1 v1 va1=3; w3 u3=4; z3 v3=7", "", {"outputs": (0, 3)}),
        ("packed", PACKED, "w0 u0 z0 v0=2; w2 u2 z2 v2=4", "w2 u2=6; z2 v2=7", HEADS),
        ("packed and causal", {**PACKED, "w": live(2, 5, 24)},
         "w0 u0 z0 v0=2; w2 u2 z2 v2=4", "w2 u2=6; z2 v2=7", {**HEADS, **CAUSE}),
        ("packed, a mask", {**PACKED, "m": weight(3, 5)},
         "w0 u0 z0 v0=2; w2 u2 z2 v2=4", "w2 u2=6; z2 v2=7", HEADS),
        ("packed, grouped queries, a mask", {**PACKED_FEWER, **MASK},
         "w0 u0 z0 v0=2; w2 u2 z2 v2=3", "w2 u2=4; z2 v2=7",
         {"q_num_heads": 6, "kv_num_heads": 3, **SHARED}),
        ("packed, grouped queries, a mask per head", {**PACKED_FEWER, "m": live(2, 6, 3, 5)},
         "w0 u0 z0 m0 v0=2; w2 u2 z2 m1 v2=3", "w2 u2=4; z2 v2=7",
         {"q_num_heads": 6, "kv_num_heads": 3, **SHARED}),
        ("packed, grouped queries, a cache", {**PACKED_FEWER, "m": None, **FEWER_PASTS},
         "w0 u0 z0 p0 t0 v0 va0 vb0=2; w2 u2 z2 p1 t1 v2 va1 vb1=3", "",
         {"outputs": (0, 1, 2), "q_num_heads": 6, "kv_num_heads": 3}),
        ("packed, a mask per head", {**PACKED, "m": weight(2, 4, 3, 5)},
         "w0 u0 z0 m0 v0=2; w2 u2 z2 m1 v2=4", "w2 u2=6; z2 v2=7", HEADS),
        ("packed, grouped queries", PACKED_FEWER, "w0 u0 z0 v0=2; w2 u2 z2 v2=3",
         "w2 u2=4; z2 v2=7", {"q_num_heads": 6, "kv_num_heads": 3}),
        ("packed, a cache", {**PACKED, "m": None, **PASTS},
         "w0 u0 z0 p0 t0 v0 va0 vb0=2; w2 u2 z2 p1 t1 v2 va1 vb1=4", "",
         {"outputs": (0, 1, 2), **HEADS}),
    )
]  # fmt: skip

COS = {"c": weight(9, 3), "s": weight(9, 3), "p": ints(0, 4, 2, 1, 8, 5).reshape(2, 3)}
WHOLE = {"c": weight(2, 3, 3), "s": weight(2, 3, 3)}
LIVE_COS = {**COS, "c": live(9, 3), "s": live(9, 3)}
LIVE_WHOLE = {"c": live(2, 3, 3), "s": live(2, 3, 3)}
CACHES = {"shared": ("c", "s")}
ROTARY = [
    one("RotaryEmbedding", title, operands, groups, opset=23, **more)
    for title, operands, groups, more in (
        ("four axes", {"w": live(2, 4, 3, 6), **COS}, "w0 p0 v0=2; w1 v1=4", {}),
        ("pairs", {"w": live(2, 4, 3, 6), **COS}, "w0 p0 v0=2; w1 v1=4", {"interleaved": 1}),
        ("a part", {"w": live(2, 4, 3, 10), **COS}, "w0 p0 v0=2; w1 v1=4",
         {"rotary_embedding_dim": 6}),
        ("computed caches", {"w": live(2, 4, 3, 6), **LIVE_COS}, "w0 p0 v0=2; w1 v1=4", CACHES),
        ("packed, computed caches", {"w": live(2, 3, 4 * 6), **LIVE_COS}, "w0 p0 v0=2; w2 v2=4",
         {"num_heads": 4, **CACHES}),
        ("computed, no positions", {"w": live(2, 4, 3, 6), **LIVE_WHOLE},
         "w0 c0 s0 v0=2; w1 v1=4", CACHES),
        ("packed, computed, no positions", {"w": live(2, 3, 4 * 6), **LIVE_WHOLE},
         "w0 c0 s0 v0=2; w2 v2=4", {"num_heads": 4, **CACHES}),
        ("no positions", {"w": live(2, 4, 3, 6), **WHOLE}, "w0 c0 s0 v0=2; w1 v1=4", {}),
        ("packed", {"w": live(2, 3, 4 * 6), **COS}, "w0 p0 v0=2; w2 v2=4", {"num_heads": 4}),
        ("packed, no positions", {"w": live(2, 3, 4 * 6), **WHOLE}, "w0 c0 s0 v0=2; w2 v2=4",
         {"num_heads": 4}),
    )
]  # fmt: skip

CASES = [*RECURRENT, *ATTENTION, *ROTARY]
SILENT = [layout(name) for name in GATES]
BUNDLES = bundles(CASES)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_recurrent(bundle: str) -> None:
    judge(BUNDLES[bundle], ready(BUNDLES[bundle]))
