"""Golden groups: what the engine must find in every net of the zoo, computed by hand.

The self-check can't see that something stays which could leave; these numbers can.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxtrim.toolkit.graph.groups import Analysis
from tests.nets import prepared
from tests.zoo import ZOO

OUT = "it is an output of the model"
IN = "it is an input of the model"

# net -> group -> units, parameters, MACs, weights with the axis that the group lies on
# (``bn.*`` are the four vectors of a batch normalisation)
GOLDEN: dict[str, dict[str, tuple[int, int, int, str]]] = {
    "mlp": {
        "fc1": (12, 12 * (8 + 1 + 10), 12 * (8 + 10), "fc1.weight.0 fc1.bias.0 fc2.weight.1"),
        "fc2": (10, 10 * (12 + 4), 10 * (12 + 4), "fc2.weight.0 fc3.weight.1"),
    },
    "mlp_matmul": {
        "fc1": (12, 12 * (8 + 1 + 10), 12 * (8 + 10), "fc1.weight.1 fc1.bias.0 fc2.weight.1"),
        "fc2": (10, 10 * (12 + 1 + 4), 10 * (12 + 4), "fc2.weight.0 fc2.bias.0 fc3.weight.0"),
    },
    "mlp_tokens": {
        "fc1": (24, 24 * (8 + 1 + 20), 5 * 24 * 28, "fc1.weight.0 fc1.bias.0 fc2.weight.1"),
        "fc2": (20, 20 * (24 + 1 + 6), 5 * 20 * 30, "fc2.weight.0 fc2.bias.0 fc3.weight.1"),
    },
    "mlp_square": {
        "fc1": (16, 16 * (16 + 1 + 16), 2 * 16**3, "fc1.weight.1 fc1.bias.0 fc3.weight.0"),
    },
    "residual": {
        "stem": (
            8,
            8 * (27 + 2 * 4 + 2 * 72 + 108 + 12),
            64 * 8 * (27 + 72 + 72) + 16 * 12 * 8 * (9 + 1),
            "stem.weight.0 bn0.*.0 b1.conv1.weight.1 b1.conv2.weight.0 b1.bn2.*.0"
            " b2.conv1.weight.1 b2.skip.weight.1",
        ),
        "b1.conv1": (
            8,
            8 * (72 + 4 + 72),
            64 * 8 * (72 + 72),
            "b1.conv1.weight.0 b1.bn1.*.0 b1.conv2.weight.1",
        ),
        "b2.conv1": (
            12,
            12 * (72 + 4 + 108),
            16 * 12 * (72 + 108),
            "b2.conv1.weight.0 b2.bn1.*.0 b2.conv2.weight.1",
        ),
        "b2.conv2": (
            12,
            12 * (108 + 4 + 8 + 4 + 5),
            16 * 12 * (108 + 8) + 12 * 5,
            "b2.conv2.weight.0 b2.bn2.*.0 b2.skip.weight.0 b2.bn3.*.0 head.weight.1",
        ),
    },
    "mobile": {
        "stem": (
            8,
            8 * (27 + 1 + 24 + 24 + 1 + 24),
            64 * 8 * (27 + 24 + 24 + 24),
            "stem.weight.0 stem.bias.0 m1.expand.weight.1 m1.project.weight.0 m1.project.bias.0"
            " m2.expand.weight.1",
        ),
        **{
            f"{m}.expand": (
                24,
                24 * (8 + 4 + 9 + 1 + 8),
                64 * 24 * (8 + 9 + 8),
                f"{m}.expand.weight.0 {m}.bn1.*.0 {m}.depthwise.weight.0 {m}.depthwise.bias.0"
                f" {m}.project.weight.1",
            )
            for m in ("m1", "m2")
        },
        "m2.project": (
            8,
            8 * (24 + 1 + 5),
            64 * 8 * 24 + 8 * 5,
            "m2.project.weight.0 m2.project.bias.0 head.weight.1",
        ),
    },
    "grouped": {  # whole groups: 3 channels in, 4 channels out
        "c1": (
            4,
            12 * (3 + 1) + 16 * (3 * 9 + 1) + 16 * 5,
            36 * (12 * 3 + 16 * 27 + 16 * 5),
            "c1.weight.0 c1.bias.0 c2.weight.0 c2.bias.0 c3.weight.1",
        ),
    },
    "dense": {
        "stem": (
            8,
            8 * (27 + 1 + 4 + 36 + 4 + 36 + 4 + 5),
            36 * 8 * (27 + 36 + 36) + 8 * 5,
            "stem.weight.0 stem.bias.0 d1.bn.*.0 d1.conv.weight.1 d2.bn.*.0 d2.conv.weight.1"
            " last.*.0 head.weight.1",
        ),
        "d1.conv": (
            4,
            4 * (72 + 1 + 4 + 36 + 4 + 5),
            36 * 4 * (72 + 36) + 4 * 5,
            "d1.conv.weight.0 d1.conv.bias.0 d2.bn.*.0 d2.conv.weight.1 last.*.0 head.weight.1",
        ),
        "d2.conv": (
            4,
            4 * (108 + 1 + 4 + 5),
            36 * 4 * 108 + 4 * 5,
            "d2.conv.weight.0 d2.conv.bias.0 last.*.0 head.weight.1",
        ),
    },
    "unet": {
        "down1": (
            6,
            6 * (27 + 1 + 90 + 54 + 63),
            36 * 6 * (27 + 90 + 54 + 63),
            "down1.weight.0 down1.bias.0 down2.weight.1 up1.weight.1 up2.weight.1",
        ),
        "down2": (
            10,
            10 * (54 + 1 + 54 + 63),
            36 * 10 * (54 + 54 + 63),
            "down2.weight.0 down2.bias.0 up1.weight.1 up2.weight.1",
        ),
        "up1": (
            6,
            6 * (144 + 1 + 63),
            36 * 6 * (144 + 63),
            "up1.weight.0 up1.bias.0 up2.weight.1",
        ),
        "up2": (7, 7 * (198 + 1 + 2), 36 * 7 * 200, "up2.weight.0 up2.bias.0 out.weight.1"),
    },
    "squeeze_excite": {
        "c1": (
            12,
            12 * (27 + 1 + 4 + 4 + 1 + 45),
            36 * 12 * (27 + 45) + 12 * 8,
            "c1.weight.0 c1.bias.0 down.weight.1 up.weight.0 up.bias.0 c2.weight.1",
        ),
        "down": (4, 4 * (12 + 1 + 12), 4 * 24, "down.weight.0 down.bias.0 up.weight.1"),
    },
    **{
        net: {
            "c1": (
                6,
                6 * (27 + 1 + 16 * 5),
                16 * 6 * (27 + 5),
                "c1.weight.0 c1.bias.0 fc.weight.1",
            )
        }
        for net in ("flatten", "reshape_constant")
    },
    "reshape_live": {
        "c1": (6, 6 * (27 + 1 + 45), 16 * 6 * (27 + 45), "c1.weight.0 c1.bias.0 c2.weight.1"),
        "c2": (5, 5 * (54 + 1 + 48), 16 * 5 * (54 + 3), "c2.weight.0 c2.bias.0 fc.weight.1"),
    },
    "reshape_free": {
        "c1": (6, 6 * (27 + 1 + 4), 24 * 6 * (27 + 4), "c1.weight.0 c1.bias.0 fc.weight.0"),
    },
    "transposes": {
        "c1": (7, 7 * (27 + 1 + 9), 25 * 7 * (27 + 9), "c1.weight.0 c1.bias.0 fc1.weight.0"),
        "fc1": (9, 9 * (7 + 1 + 36), 25 * 9 * (7 + 36), "fc1.weight.1 fc1.bias.0 c2.weight.1"),
    },
    "tied": {
        "fc1": (
            24,
            24 * (8 + 1 + 10 + 4),
            24 * (8 + 10 + 10 + 4),
            "fc1.weight.0 fc1.bias.0 w.0 fc2.weight.1",
        ),
        "w": (10, 10 * 24, 2 * 10 * 24, "w.1"),
    },
    "called_twice": {
        "fc1": (
            10,
            10 * (8 + 1 + 10 + 1 + 4),
            10 * (8 + 10 + 10 + 4),
            "fc1.weight.0 fc1.bias.0 w.0 w.1 b.0 b.copy1.0 fc2.weight.1",
        ),
    },
    "shared_bias": {  # the one that is shared counts where it was first
        "c1": (8, 8 * (27 + 1 + 72), 25 * 8 * (27 + 72), "c1.weight.0 zero.0 c2.weight.1"),
        "c2": (8, 8 * (72 + 72), 25 * 8 * 144, "c2.weight.0 zero.copy1.0 c3.weight.1"),
        "c3": (8, 8 * (72 + 2), 25 * 8 * 74, "c3.weight.0 zero.copy2.0 out.weight.1"),
    },
    "gate": {
        "c1": (
            8,
            8 * (27 + 1 + 9 + 27),
            25 * 8 * (27 + 9 + 27),
            "c1.weight.0 c1.bias.0 gate.weight.1 c2.weight.1",
        ),
    },
    "attention": {
        "q": (  # heads
            4,
            3 * 24 * (8 + 1) + 24 * 8,
            5 * 4 * 24 * 8,
            "q.weight.1 q.bias.0 k.weight.1 k.bias.0 v.weight.1 v.bias.0 out.weight.0",
        ),
        "ffn1": (20, 20 * (8 + 1 + 8), 5 * 20 * 16, "ffn1.weight.1 ffn1.bias.0 ffn2.weight.0"),
    },
    "summed": {
        "c1": (8, 8 * (27 + 1 + 27), 25 * 8 * 54, "c1.weight.0 c1.bias.0 c2.weight.1"),
    },
}

LAST = {  # the weight that makes the output
    "mlp": "fc3", "mlp_matmul": "fc3", "mlp_square": "fc3", "residual": "head", "mobile": "head",
    "grouped": "c3", "dense": "head", "unet": "out", "squeeze_excite": "c2", "flatten": "fc",
    "reshape_constant": "fc", "transposes": "c2", "tied": "fc2", "called_twice": "fc2",
    "shared_bias": "out", "gate": "c2", "summed": "c2",
}  # fmt: skip
FROZEN = {
    **{net: {(f"{name}.weight", OUT)} for net, name in LAST.items()},
    "mlp_square": {("fc3.weight", OUT), ("fc2.weight", OUT)},
    "mlp_tokens": {("fc1.weight", IN), ("fc3.weight", OUT)},  # one flipped weight's other axis
    "reshape_live": {("fc.weight", OUT)},
    "reshape_free": {("fc.weight", OUT)},
    "attention": {("out.weight", IN), ("ffn2.weight", OUT)},  # the residual stream
}


@pytest.fixture(scope="module")
def analyses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Analysis]:
    folder: Path = tmp_path_factory.mktemp("nets")
    return {name: prepared(build(), folder, name).analysis for name, build in ZOO.items()}


def lies_on(text: str) -> set[tuple[str, int]]:
    refs = set()
    for word in text.split():
        name, axis = word.rsplit(".", 1)
        parts = ("scale", "shift", "mean", "var") if name.endswith(".*") else ("",)
        refs |= {(name.removesuffix("*") + part, int(axis)) for part in parts}
    return refs


def test_every_net_has_golden_groups() -> None:
    assert GOLDEN.keys() == FROZEN.keys() == ZOO.keys()


@pytest.mark.parametrize("net", ZOO)
def test_groups(net: str, analyses: dict[str, Analysis]) -> None:
    analysis = analyses[net]
    weights = analysis.model.graph.initializers
    found = {
        group.name: (
            group.units,
            group.parameters,
            group.macs,
            {ref for ref in group.slices if ref[0] in weights},
        )
        for group in analysis.groups
    }
    wanted = {name: (*row[:3], lies_on(row[3])) for name, row in GOLDEN[net].items()}
    assert found == wanted


@pytest.mark.parametrize("net", ZOO)
def test_frozen(net: str, analyses: dict[str, Analysis]) -> None:
    assert {(item.name, item.reason) for item in analyses[net].frozen} == FROZEN[net]


def test_totals(analyses: dict[str, Analysis]) -> None:
    mlp = analyses["mlp"]
    assert (mlp.parameters, mlp.prunable_parameters) == (8 * 12 + 12 + 120 + 44, 8 * 12 + 12 + 160)
    assert mlp.macs == 8 * 12 + 12 * 10 + 10 * 4
    # A tensor that was copied counts once.
    assert analyses["shared_bias"].parameters == 8 * (27 + 72 + 72 + 2) + 8 + 2
    assert analyses["called_twice"].parameters == 10 * 8 + 10 + 110 + 44


def test_where_statistics_are_taken(analyses: dict[str, Analysis]) -> None:
    """Where activations are read, never at weights."""
    assert analyses["mlp_tokens"].consumer_inputs() == [("gelu_3", 2), ("gelu_7", 2)]
    assert analyses["dense"].consumer_inputs() == [
        ("relu_2", 1), ("relu_6", 1), ("flatten_12", 1),
    ]  # fmt: skip
