"""``onnxtrim demo``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import click
import numpy as np

from onnxtrim.bench.errors import InputError, MissingExtraError, OnnxtrimError
from onnxtrim.bench.files import atomic_path, read_json, write_json, write_text
from onnxtrim.bench.gate import Judgement, check_result, judge, load_policy, measure_for
from onnxtrim.bench.gate.choice import choose_by
from onnxtrim.bench.latency import Protocol
from onnxtrim.bench.measurement import Measurement
from onnxtrim.bench.model_file import model_sha256
from onnxtrim.bench.report.page import write_report
from onnxtrim.bench.report.pictures import write_plots
from onnxtrim.bench.report.result_page import write_result_report
from onnxtrim.bench.result_file import load_result, save_result
from onnxtrim.bench.run_folder import Run, choose
from onnxtrim.bench.session import RunOptions
from onnxtrim.bench.settings import Settings
from onnxtrim.toolkit.cli.candidates import print_run, sweep_json
from onnxtrim.toolkit.cli.common import Report, number, print_json, progress_bar, say, with_json
from onnxtrim.toolkit.cli.gate_output import print_judgement
from onnxtrim.toolkit.demo import DATA, DemoData, load_data, train_network
from onnxtrim.toolkit.sweep import SweepOptions, sweep

SCHEMA = "onnxtrim.demo/2"

VALIDATION = 7_000
"""Test images to choose by; the gate has the rest."""

POLICY = """\
# What the demo's gate asks for; 'onnxtrim gate' reads this file.
schema = 1

[target.demo]
threads = 1

[[target.demo.rule]]
metric = "latency.p50.ratio"        # at least a fifth faster
max = 0.8

[[target.demo.rule]]
metric = "memory.run_peak.ratio"    # no larger
max = 1.0
slack = "256 KiB"

[[target.demo.rule]]
metric = "accuracy.top1.delta"      # loses less than a point
min = "-1 pp"
"""


@click.command("demo")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("demo-output"),
    show_default=True,
    help="Folder for models, results and report.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=DATA,
    help="fashion-mnist.npz of the repository.",
)
@click.option("--epochs", type=click.IntRange(min=1), default=24, show_default=True)
@click.option("--launches", type=click.IntRange(min=2), default=6, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@with_json
def command(output: Path, data: Path, epochs: int, launches: int, seed: int, as_json: bool) -> None:
    """Train, prune, sweep and measure a real network on Fashion-MNIST.

    Trains an MLP 784-1024-512-256-10 on 17,000 images, gathers statistics on 3,000 others, sweeps
    the published pairs of thresholds, exports every candidate to ONNX, compares each with the
    original in ONNX Runtime on 7,000 test images, chooses the fastest that a policy lets through,
    and confirms it by the gate on the other 3,000. Writes models, results and an HTML report. Takes
    a few minutes; needs the extra 'torch'. Interrupted, the same command goes on.
    """
    model = output / "model.onnx"
    with progress_bar() as report:
        _prepare(output, model, data, epochs, seed, report)
        run = _sweep(output, launches, report)
        published = _published(output, run, report)
        gated = _gate(output, run, report)
    page = output / "report.html"
    write_report(run, page)
    try:
        write_plots(run, output / "plots")
    except MissingExtraError as error:
        say(f"no PNG plots: {error}")
    judgement = None
    if gated is not None:
        found, judgement = gated
        write_result_report(found, output / "gate.html", judgement)
    if as_json:
        print_json({**sweep_json(run), "gate": None if judgement is None else judgement.to_json()})
    else:
        print_run(run, published)
        if judgement is not None:
            print_judgement(judgement)
    _next(output, model, run, page)


def _prepare(
    output: Path, model: Path, data: Path, epochs: int, seed: int, report: Report | None
) -> None:
    """Train and export, unless an earlier, interrupted call did."""
    note = {"schema": SCHEMA, "epochs": epochs, "seed": seed}
    marker = output / "demo.json"
    if _is_prepared(output, marker, note):
        return
    from onnxtrim.export.from_torch import export_module, require_torch

    require_torch()
    images = load_data(data)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output}: can't be used as a folder ({error.strerror})") from error
    write_json(marker, {**note, "prepared": False})
    say(f"training an MLP on {len(images.train[0]):,} images")
    network = train_network(*images.train, epochs=epochs, seed=seed, progress=report)
    import torch

    example = torch.from_numpy(images.test[0][:2])
    exported = export_module(network, (example,), model, input_names=["image"])
    say(f"exported: {model}, equals the torch module within {exported.max_error:.1e}")
    _write_data(output, images)
    write_json(marker, {**note, "prepared": True})


def _is_prepared(output: Path, marker: Path, note: dict[str, Any]) -> bool:
    """Whether an earlier call with the same settings did it; other folders are left alone."""
    if not marker.is_file():
        if output.is_dir() and any(output.iterdir()):
            raise InputError(
                f"{output}: is not empty and holds no demo; choose another folder with -o"
            )
        return False
    found = read_json(marker, SCHEMA)
    if {**found, "prepared": None} != {**note, "prepared": None}:
        raise InputError(
            f"{output}: holds a demo with other settings; choose another folder with -o"
        )
    return bool(found.get("prepared"))


def _write_data(output: Path, images: DemoData) -> None:
    pixels, labels = images.test
    files: dict[str, dict[str, Any]] = {
        "calib.npz": {"image": images.calibration},
        "val.npz": {"image": pixels[:VALIDATION], "labels": labels[:VALIDATION]},
        "test.npz": {"image": pixels[VALIDATION:], "labels": labels[VALIDATION:]},
    }
    for name, arrays in files.items():
        with atomic_path(output / name) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)


def _sweep(output: Path, launches: int, report: Report | None) -> Run:
    say("sweeping thresholds; every candidate is measured in turns with the original")
    # One thread: what the measurement protocol was validated with.
    settings = Settings(RunOptions(threads=1), Protocol(launches=launches))
    return sweep(
        output / "model.onnx",
        output / "calib.npz",
        output / "sweep",
        evaluation=output / "val.npz",
        options=SweepOptions(settings=settings),
        progress=report,
    )


def _published(output: Path, run: Run, report: Report | None) -> dict[str, str]:
    """Accuracy differences of the same candidates without repair: the rule as published."""
    settings = Settings(options=RunOptions(threads=1), latency=False, memory=False)
    plain = sweep(
        output / "model.onnx",
        output / "calib.npz",
        output / "as-published",
        evaluation=output / "val.npz",
        options=SweepOptions(repair="none", settings=settings),
        progress=report,
    )
    return {
        item.id: number(item.metrics.get("accuracy.top1.delta")).partition(" [")[0]
        for item in plain.candidates
    }


def _gate(output: Path, run: Run, report: Report | None) -> tuple[Measurement, Judgement] | None:
    """Choose by a policy on what the sweep measured, and confirm it on images it did not see."""
    path = output / "gate.toml"
    write_text(path, POLICY)
    policy = load_policy(path)
    try:
        chosen = choose_by(run, policy.target())
    except OnnxtrimError as error:
        say(f"no gate: {error}")
        return None
    model, kept = run.model_path(chosen.candidate), output / "result.json"
    if kept.is_file():  # an earlier call measured it, or another candidate
        with contextlib.suppress(InputError):
            found = load_result(kept)
            check_result(found, policy, {"candidate": model_sha256(model)})
            return found, judge(found, policy, tried=chosen.tried)
    found = measure_for(
        policy, output / "model.onnx", model, data=output / "test.npz", progress=report
    )
    save_result(found, kept)
    return found, judge(found, policy, tried=chosen.tried)


def _next(output: Path, model: Path, run: Run, page: Path) -> None:
    chosen = choose(run.candidates, run.spec.max_drop)
    best = run.model_path(run.candidate(chosen)) if chosen else output / "small.onnx"
    say(f"reports: {page}, and of the gate {output}/gate.html (they need no network)")
    say("next, on the same files:")
    say(f"  onnxtrim inspect {model}")
    say(
        f"  onnxtrim prune {model} --data {output}/calib.npz --mean-below 0.25 --std-below 0.5"
        f" -o {output}/mine.onnx"
    )
    say(f"  onnxtrim compare {model} {best} --eval {output}/test.npz")
    say("and on your own model: onnxtrim sweep MODEL --data CALIB --eval VAL -o runs/first")
