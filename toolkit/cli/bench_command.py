"""``onnxtrim bench``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from onnxtrim.bench.compare import bench_model, compare
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.looks import CODES, FAIL
from onnxtrim.bench.result_file import load_result
from onnxtrim.bench.runner import write_runner
from onnxtrim.bench.selfcheck import reference_model, run_selfcheck
from onnxtrim.toolkit.cli.common import (
    check_output,
    out,
    print_json,
    progress_bar,
    say,
    table,
    with_json,
    with_shape,
)
from onnxtrim.toolkit.cli.measuring import (
    finish,
    measured,
    refuse_other_options,
    settings,
    with_protocol,
)

SELFCHECK = "selfcheck"


@click.command("bench")
@click.argument("model", type=click.Path(path_type=Path), required=False)
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="The original, measured in turns with MODEL.",
)
@click.option(
    "--data",
    metavar="NPZ|FOLDER|MODULE:FUNCTION",
    help="Real inputs, and accuracy if they have labels; seeded random inputs else.",
)
@with_shape
@with_protocol
@click.option(
    "--runner",
    is_flag=True,
    help="Measure nothing: write what measures on a device to --output, one file that needs"
    " Python 3.9 or later, numpy and onnxruntime.",
)
@with_json
def command(
    model: Path | None,
    against: Path | None,
    data: str | None,
    shapes: tuple[str, ...],
    output: Path | None,
    source: Path | None,
    runner: bool,
    as_json: bool,
    **measuring: Any,
) -> None:
    """Measure MODEL in ONNX Runtime: latency, load time, memory, size.

    Needs neither torch nor the original's training code. Each launch is a fresh process and one
    value of the interval; within a launch, two models take turns of a few milliseconds.

    \b
    Example:
      onnxtrim bench small.onnx
      onnxtrim bench small.onnx --against model.onnx --limit 0.8 -o result.json
      onnxtrim bench --from result.json
    On a device without onnxtrim:
      onnxtrim bench --runner -o runner.pyz
      python runner.pyz model.onnx small.onnx -o result.json
    Whether this machine can be trusted, in two to five minutes:
      onnxtrim bench selfcheck
    """
    schema = "onnxtrim.bench/1"
    if runner:
        refuse_other_options("--runner", "runner", "output")
        if output is None:
            raise InputError("--runner writes a file; say where with -o runner.pyz")
        check_output(output)
        write_runner(output)
        say(f"next, on the device: python {output.name} model.onnx small.onnx -o result.json")
        return
    if source is not None:
        refuse_other_options("--from", "source")
        found = load_result(source)
        finish(found, str(source), schema, as_json=as_json)
        return
    if model is not None and str(model) == SELFCHECK and not model.exists():
        refuse_other_options(SELFCHECK, "model", "threads", "rounds", "seed")
        _selfcheck(measuring, as_json=as_json)
        return
    if model is None:
        raise InputError("give the MODEL to measure, or --from a result")
    if measuring["limit"] is not None and against is None:
        raise InputError("--limit is of a ratio; give the original with --against")
    chosen = settings(**measuring, shapes=shapes)
    if chosen.metrics and data is None:
        raise click.UsageError("--metric needs --data")
    with measured(output, model, against, data=data) as write, progress_bar() as report:
        if against is None:
            found = bench_model(model, data=data, settings=chosen, progress=report)
        else:
            found = compare(against, model, data=data, settings=chosen, progress=report)
        write(found)
    finish(found, str(model), schema, as_json=as_json)


def _selfcheck(measuring: dict[str, Any], *, as_json: bool) -> None:
    chosen = settings(**measuring)
    with tempfile.TemporaryDirectory(prefix="onnxtrim-") as folder, progress_bar() as report:
        model = Path(folder) / "reference.onnx"
        feeds = reference_model(model)
        found = run_selfcheck(
            model,
            feeds,
            chosen.options,
            rounds=chosen.protocol.rounds,
            seed=chosen.protocol.seed,
            progress=report,
        )
    if found.busy is not None:
        say(f"warning: the machine was busy: {found.busy}")
    if as_json:
        print_json(found.to_json())
    else:
        rows = [[c.name, "right" if c.passed else "WRONG", c.told] for c in found.checks]
        out().print(table("harness", ["check", "", "found"], rows))
        words = [
            f"{share:.0%}: {'yes' if found.trusted(share) else 'no'}" for share in (0.02, 0.05)
        ]
        out().print(
            f"verdicts on this machine can be trusted at a limit of {', '.join(words)}"
            f" (eight launches: ±{found.half_width:.2%}; finds {found.effect:.2%} in 80%)"
        )
    if not found.passed:
        raise click.exceptions.Exit(CODES[FAIL])
