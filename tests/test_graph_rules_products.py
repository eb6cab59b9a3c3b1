"""Rules of convolutions and matrix products: every axis alive, all sizes different."""

from __future__ import annotations

import pytest

from tests.rule_case import Case, live, one, weight
from tests.rule_judge import bundles, judge, ready

BATCH = "w0 v0=2"
CONV = [
    one("Conv", "1-D", {"w": live(2, 6, 9), "k": weight(5, 6, 3), "b": weight(5)},
        f"{BATCH}; w1 k1=6; k0 b0 v1=5"),
    one("Conv", "2-D, no bias", {"w": live(2, 6, 9, 7), "k": weight(5, 6, 3, 4)},
        f"{BATCH}; w1 k1=6; k0 v1=5", strides=[2, 1]),
    one("Conv", "2-D with group 1",
        {"w": live(2, 6, 9, 7), "k": weight(5, 6, 3, 4), "b": weight(5)},
        f"{BATCH}; w1 k1=6; k0 b0 v1=5", group=1, pads=[1, 2, 1, 2], dilations=[2, 1]),
    one("Conv", "3-D", {"w": live(2, 6, 5, 4, 7), "k": weight(8, 6, 3, 2, 2), "b": weight(8)},
        f"{BATCH}; w1 k1=6; k0 b0 v1=8"),
    one("Conv", "1-D grouped", {"w": live(2, 6, 9), "k": weight(9, 2, 4), "b": weight(9)},
        f"{BATCH}; w1 k0 b0 v1=3", inner="w1 k1=2; k0 b0 v1=3", group=3),
    one("Conv", "2-D grouped", {"w": live(2, 12, 5, 7), "k": weight(8, 3, 2, 3), "b": weight(8)},
        f"{BATCH}; w1 k0 b0 v1=4", inner="w1 k1=3; k0 b0 v1=2", group=4),
    one("Conv", "3-D grouped, no bias", {"w": live(2, 6, 5, 4, 7), "k": weight(10, 3, 3, 2, 2)},
        f"{BATCH}; w1 k0 v1=2", inner="w1 k1=3; k0 v1=5", group=2),
    one("Conv", "depthwise", {"w": live(2, 6, 5, 7), "k": weight(6, 1, 2, 3), "b": weight(6)},
        f"{BATCH}; w1 k0 b0 v1=6", group=6),
    one("Conv", "depthwise, multiplied", {"w": live(2, 3, 5, 7), "k": weight(6, 1, 2, 3)},
        f"{BATCH}; w1 k0 v1=3", inner="k0 v1=2", group=3),
    one("Conv", "computed kernel", {"w": live(2, 6, 5, 7), "u": live(4, 6, 2, 3)},
        f"{BATCH}; w1 u1=6; u0 v1=4"),
    one("Conv", "grouped and computed",
        {"w": live(2, 6, 5, 7), "u": live(8, 3, 2, 3), "b": weight(8)},
        f"{BATCH}; w1 u0 b0 v1=2", inner="w1 u1=3; u0 b0 v1=4", group=2),
    one("Conv", "opset 9", {"w": live(2, 6, 5, 7), "k": weight(8, 3, 2, 3), "b": weight(8)},
        f"{BATCH}; w1 k0 b0 v1=2", inner="w1 k1=3; k0 b0 v1=4", group=2, opset=9),
    one("ConvTranspose", "1-D", {"w": live(2, 6, 9), "k": weight(6, 5, 3), "b": weight(5)},
        f"{BATCH}; w1 k0=6; k1 b0 v1=5"),
    one("ConvTranspose", "2-D, no bias", {"w": live(2, 6, 5, 7), "k": weight(6, 5, 3, 4)},
        f"{BATCH}; w1 k0=6; k1 v1=5", strides=[2, 1]),
    one("ConvTranspose", "3-D", {"w": live(2, 6, 3, 4, 5), "k": weight(6, 7, 3, 2, 2)},
        f"{BATCH}; w1 k0=6; k1 v1=7"),
    one("ConvTranspose", "1-D grouped", {"w": live(2, 6, 9), "k": weight(6, 4, 3), "b": weight(12)},
        f"{BATCH}; w1 k0 b0 v1=3", inner="w1 k0=2; k1 b0 v1=4", group=3),
    one("ConvTranspose", "2-D grouped",
        {"w": live(2, 6, 5, 7), "k": weight(6, 5, 2, 3), "b": weight(10)},
        f"{BATCH}; w1 k0 b0 v1=2", inner="w1 k0=3; k1 b0 v1=5", group=2),
    one("ConvTranspose", "depthwise",
        {"w": live(2, 6, 5, 7), "k": weight(6, 1, 2, 3), "b": weight(6)},
        f"{BATCH}; w1 k0 b0 v1=6", group=6),
    one("ConvTranspose", "grouped and computed",
        {"w": live(2, 6, 5, 7), "u": live(6, 4, 2, 3), "b": weight(12)},
        f"{BATCH}; w1 u0 b0 v1=3", inner="w1 u0=2; u1 b0 v1=4", group=3),
    one("ConvTranspose", "computed kernel", {"w": live(2, 6, 5, 7), "u": live(6, 5, 2, 3)},
        f"{BATCH}; w1 u0=6; u1 v1=5"),
]  # fmt: skip

GEMM = [
    one("Gemm", f"transA {a}, transB {b}, {title}",
        {"w": live(*((5, 3) if a else (3, 5))), "k": weight(*((7, 5) if b else (5, 7))), **bias},
        f"w{a} v0{more[0]}=3; w{1 - a} k{b}=5; k{1 - b} v1{more[1]}=7", transA=a, transB=b)
    for a in (0, 1)
    for b in (0, 1)
    for title, bias, more in (
        ("no bias", {}, ("", "")),
        ("a vector", {"c": weight(7)}, ("", " c0")),
        ("a matrix", {"c": weight(3, 7)}, (" c0", " c1")),
        ("a row", {"c": weight(1, 7)}, ("", " c1")),
        ("a column", {"c": weight(3, 1)}, (" c0", "")),
        ("a scalar", {"c": weight()}, ("", "")),
        ("a single one", {"c": weight(1)}, ("", "")),
    )
]  # fmt: skip
GEMM += [
    one("Gemm", "two that are computed", {"w": live(3, 5), "u": live(5, 7), "c": live(7)},
        "w0 v0=3; w1 u0=5; u1 c0 v1=7", alpha=0.5, beta=2.0),
    one("Gemm", "opset 9", {"w": live(3, 5), "k": weight(7, 5), "c": weight(7)},
        "w0 v0=3; w1 k1=5; k0 c0 v1=7", opset=9, transB=1),
    one("MatMul", "matrices", {"w": live(3, 5), "k": weight(5, 7)}, "w0 v0=3; w1 k0=5; k1 v1=7"),
    one("MatMul", "batches", {"w": live(2, 4, 3, 5), "k": weight(2, 4, 5, 7)},
        "w0 k0 v0=2; w1 k1 v1=4; w2 v2=3; w3 k2=5; k3 v3=7"),
    one("MatMul", "fewer axes on the right", {"w": live(2, 4, 3, 5), "k": weight(4, 5, 7)},
        "w0 v0=2; w1 k0 v1=4; w2 v2=3; w3 k1=5; k2 v3=7"),
    one("MatMul", "fewer axes on the left", {"w": live(3, 5), "k": weight(2, 4, 5, 7)},
        "k0 v0=2; k1 v1=4; w0 v2=3; w1 k2=5; k3 v3=7"),
    one("MatMul", "a batch that repeats", {"w": live(2, 1, 3, 5), "k": weight(1, 4, 5, 7)},
        "w0 v0=2; k1 v1=4; w2 v2=3; w3 k2=5; k3 v3=7"),
    one("MatMul", "a vector on the right", {"w": live(2, 3, 5), "k": weight(5)},
        "w0 v0=2; w1 v1=3; w2 k0=5"),
    one("MatMul", "a vector on the left", {"w": live(5), "k": weight(2, 5, 7)},
        "k0 v0=2; w0 k1=5; k2 v1=7"),
    one("MatMul", "two vectors", {"w": live(5), "k": weight(5)}, "w0 k0=5"),
    one("MatMul", "two that are computed", {"w": live(2, 3, 5), "u": live(2, 5, 7)},
        "w0 u0 v0=2; w1 v1=3; w2 u1=5; u2 v2=7"),
    one("MatMul", "opset 9", {"w": live(2, 3, 5), "k": weight(5, 7)},
        "w0 v0=2; w1 v1=3; w2 k0=5; k1 v2=7", opset=9),
]  # fmt: skip


def einsum(equation: str, *shapes: tuple[int, ...], groups: str, **more: object) -> Case:
    operands = {name: live(*shape) for name, shape in zip("wku", shapes, strict=False)}
    return one("Einsum", equation, operands, groups, equation=equation, **more)


EINSUM = [
    einsum("bij,bjk->bik", (2, 3, 5), (2, 5, 7), groups="w0 k0 v0=2; w1 v1=3; w2 k1=5; k2 v2=7"),
    einsum("b i j , k j -> k b i", (2, 3, 5), (7, 5),
           groups="w0 v1=2; w1 v2=3; w2 k1=5; k0 v0=7"),
    einsum("ij,jk", (3, 5), (5, 7), groups="w0 v0=3; w1 k0=5; k1 v1=7"),
    einsum("zb,ba", (3, 5), (5, 7), groups="w0 v1=3; w1 k0=5; k1 v0=7"),
    einsum("ji", (3, 5), groups="w0 v1=3; w1 v0=5"),
    einsum("ij->", (3, 5), groups="w0=3; w1=5"),
    einsum("ij->i", (3, 5), groups="w0 v0=3; w1=5"),
    einsum("i,j->ij", (3,), (5,), groups="w0 v0=3; k0 v1=5"),
    einsum("...ij,...jk->...ik", (2, 4, 3, 5), (2, 4, 5, 7),
           groups="w0 k0 v0=2; w1 k1 v1=4; w2 v2=3; w3 k2=5; k3 v3=7"),
    einsum("...ij,jk->...ki", (2, 4, 3, 5), (5, 7),
           groups="w0 v0=2; w1 v1=4; w2 v3=3; w3 k0=5; k1 v2=7"),
    einsum("...ij,...jk", (2, 4, 3, 5), (2, 4, 5, 7),
           groups="w0 k0 v0=2; w1 k1 v1=4; w2 v2=3; w3 k2=5; k3 v3=7"),
    einsum("a...c,c->...a", (2, 4, 3, 5), (5,), groups="w0 v2=2; w1 v0=4; w2 v1=3; w3 k0=5"),
    einsum("ij,jk,kl->il", (3, 5), (5, 7), (7, 2), groups="w0 v0=3; w1 k0=5; k1 u0=7; u1 v1=2"),
    einsum("ij,ij->ij", (3, 5), (3, 5), groups="w0 k0 v0=3; w1 k1 v1=5"),
    einsum("ii->i", (5, 5), groups=""),
    einsum("iij->ij", (5, 5, 3), groups=""),
    einsum("Ij,jk->Ik", (3, 5), (5, 7), groups=""),
]  # fmt: skip

CASES = [*CONV, *GEMM, *EINSUM]
BUNDLES = bundles(CASES)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_products(bundle: str) -> None:
    judge(BUNDLES[bundle], ready(BUNDLES[bundle]))
