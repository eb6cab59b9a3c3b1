"""Rules of operators on images."""

from __future__ import annotations

import numpy as np
import pytest

from tests.rule_case import floats, ints, live, one, weight
from tests.rule_judge import bundles, judge, ready

X = {"w": live(2, 5, 6, 7)}
CHANNELS = "w0 v0=2; w1 v1=5"
POOLS = [
    *(one(operator, f"{title}, opset {opset}", {"w": live(2, 5, *sizes)}, CHANNELS,
          kernel_shape=kernel, opset=opset)
      for operator, opset in (("AveragePool", 22), ("AveragePool", 9), ("MaxPool", 22),
                              ("MaxPool", 9), ("LpPool", 18))
      for title, sizes, kernel in (("images", (6, 7), [2, 3]), ("series", (9,), [4]))),
    *(one(operator, "volumes", {"w": live(2, 5, 3, 4, 6)}, CHANNELS, kernel_shape=[2, 2, 3],
          strides=[1, 2, 1], pads=[1, 0, 1, 0, 1, 0])
      for operator in ("AveragePool", "MaxPool")),
    *(one(operator, "images", X, CHANNELS, opset=20)
      for operator in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")),
    one("GlobalAveragePool", "series", {"w": live(2, 5, 9)}, CHANNELS),
    one("MaxPool", "with indices", X, "", kernel_shape=[2, 3], outputs=(0, 1)),
]  # fmt: skip

BLOCKS = [
    one("DepthToSpace", "default", {"w": live(2, 12, 3, 5)}, "w0 v0=2; w1 v1=3", blocksize=2),
    one("DepthToSpace", "blocks first", {"w": live(2, 12, 3, 5)}, "w0 v0=2; w1 v1=3",
        blocksize=2, mode="DCR", opset=11),
    one("DepthToSpace", "blocks last", {"w": live(2, 12, 3, 5)}, "w0 v0=2; w1 v1=3",
        blocksize=2, mode="CRD"),
    one("DepthToSpace", "blocks of three", {"w": live(2, 18, 3, 5)}, "w0 v0=2; w1 v1=2",
        blocksize=3, mode="CRD"),
    one("SpaceToDepth", "two", {"w": live(2, 3, 4, 10)}, "w0 v0=2; w1 v1=3", blocksize=2),
    one("SpaceToDepth", "three", {"w": live(2, 5, 3, 6)}, "w0 v0=2; w1 v1=5", blocksize=3),
]  # fmt: skip

BOXES = np.array([[k, 7 - k, k + 3, 8 - k / 2] for k in range(7)], np.float32) / 1.2
ROIS = np.array([[k % 2, 0, k, 5, 6 + k] for k in range(4)], np.float32)
BATCHES = np.array([0, 1, 1, 0, 1, 0, 0], np.int64)
INDICES = live(7, low=0.1, high=0.5, dtype="int64")
REGIONS = [
    one("RoiAlign", "average", {"w": live(2, 5, 8, 9), "r": BOXES, "i": BATCHES},
        "w1 v1=5", output_height=2, output_width=3, opset=21),
    one("RoiAlign", "maximum", {"w": live(2, 5, 8, 9), "r": BOXES, "i": BATCHES},
        "w1 v1=5", output_height=2, output_width=3, mode="max", opset=16),
    one("RoiAlign", "computed regions",
        {"w": live(2, 5, 8, 9), "u": live(7, 4, low=0.5, high=4), "i": INDICES},
        "w1 v1=5", output_height=2, output_width=3, opset=21, shared=("u", "i")),
    one("MaxRoiPool", "computed regions",
        {"w": live(2, 5, 8, 9), "u": live(4, 5, low=0.1, high=0.5)},
        "w1 v1=5", pooled_shape=[2, 3], opset=21, shared=("u",), blind=True),
    one("MaxRoiPool", "alone", {"w": live(2, 5, 8, 9), "r": ROIS}, "w1 v1=5",
        pooled_shape=[2, 3], opset=21),
    one("GridSample", "images", {"w": live(2, 5, 4, 6), "g": live(2, 3, 7, 2)},
        "w0 g0 v0=2; w1 v1=5"),
    one("GridSample", "images, opset 16", {"w": live(2, 5, 4, 6), "g": weight(2, 3, 7, 2)},
        "w0 g0 v0=2; w1 v1=5", opset=16, mode="nearest", padding_mode="border"),
    one("GridSample", "volumes", {"w": live(2, 5, 3, 4, 6), "g": weight(2, 3, 4, 2, 3)},
        "w0 g0 v0=2; w1 v1=5"),
]  # fmt: skip

ROI, NO_SCALES = np.empty(0, np.float32), np.empty(0, np.float32)
SCALED = {**X, "r": None, "s": floats(1, 1, 2, 1.5)}
SIZED = {**X, "r": None, "s": None, "z": ints(2, 5, 8, 9)}
RESIZE = [
    one("Resize", "scales", SCALED, CHANNELS),
    one("Resize", "scales, linear", SCALED, CHANNELS, mode="linear"),
    one("Resize", "scales, one axis", {**X, "r": None, "s": floats(1, 1, 2, 1)},
        f"{CHANNELS}; w3 v3=7", mode="linear"),
    one("Resize", "scales of some axes", {**X, "r": None, "s": floats(2, 1.5)}, CHANNELS,
        axes=[2, 3]),
    one("Resize", "sizes", SIZED, CHANNELS, mode="linear"),
    one("Resize", "sizes that change the channels",
        {**X, "r": None, "s": None, "z": ints(2, 8, 8, 9)}, "w0 v0=2"),
    one("Resize", "sizes, cubic", SIZED, CHANNELS, mode="cubic", opset=13),
    one("Resize", "sizes of some axes", {**X, "r": None, "s": None, "z": ints(8, 9)}, CHANNELS,
        axes=[2, 3]),
    one("Resize", "sizes of the channels too", {**X, "r": None, "s": None, "z": ints(9, 8, 5)},
        CHANNELS, axes=[3, -2, 1]),
    one("Resize", "scales of the channels too", {**X, "r": None, "s": floats(1.5, 1)},
        f"{CHANNELS}; w2 v2=6", axes=[-1, 1]),
    one("Resize", "a crop of the same size",
        {**X, "r": floats(0, 0, 0.2, 0.1, 1, 1, 0.8, 0.9), "s": None, "z": ints(2, 5, 6, 9)},
        CHANNELS, mode="linear", coordinate_transformation_mode="tf_crop_and_resize"),
    one("Resize", "opset 11", {**X, "r": ROI, "s": floats(1, 1, 2, 1.5)}, CHANNELS, opset=11),
    one("Resize", "opset 11, sizes", {**X, "r": ROI, "s": NO_SCALES, "z": ints(2, 5, 8, 9)},
        CHANNELS, opset=11),
    one("Resize", "opset 10", {**X, "s": floats(1, 1, 2, 1.5)}, CHANNELS, opset=10,
        shapes=((2, 5, 12, 10),)),
    one("Upsample", "opset 9", {**X, "s": floats(1, 1, 2, 3)}, CHANNELS, opset=9,
        shapes=((2, 5, 12, 21),)),
]  # fmt: skip

CASES = [*POOLS, *BLOCKS, *REGIONS, *RESIZE]
BUNDLES = bundles(CASES)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_images(bundle: str) -> None:
    judge(BUNDLES[bundle], ready(BUNDLES[bundle]))
