"""``onnxtrim finetune``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxtrim.bench.data import open_data
from onnxtrim.bench.session import RunOptions, model_inputs, open_session
from onnxtrim.toolkit.apply import TrimResult, apply_plan
from onnxtrim.toolkit.cli.common import (
    Points,
    check_output,
    out,
    print_json,
    progress_bar,
    say,
    table,
    warn,
    with_json,
)
from onnxtrim.toolkit.cli.prune_choice import budget_of, mender_of
from onnxtrim.toolkit.limits import Limits
from onnxtrim.toolkit.plan import Plan
from onnxtrim.toolkit.prepare import prepare
from onnxtrim.toolkit.trim import trim

if TYPE_CHECKING:
    from onnxtrim.toolkit.distill import Distilled

_DATA = "NPZ|FOLDER|MODULE:FUNCTION"


@click.command("finetune")
@click.argument("callable_", metavar="MODULE:FUNCTION")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="A saved state_dict (torch.save(module.state_dict(), path)); nothing is unpickled.",
)
@click.option(
    "--input",
    "shapes",
    multiple=True,
    required=True,
    metavar="1x3x224x224",
    help="Shape of an input, batch first; repeatable, in the order of forward().",
)
@click.option("--input-name", "names", multiple=True, help="Name of an input; repeatable.")
@click.option("--fixed-batch", is_flag=True, help="Keep the batch size of --input.")
@click.option(
    "--data",
    metavar=_DATA,
    required=True,
    help="Samples to prune and train with; labels count in training if there are any.",
)
@click.option("--train", metavar=_DATA, help="Other samples to train with, instead of --data.")
@click.option(
    "--eval",
    "evaluation",
    metavar=_DATA,
    help="Validation samples, for early stopping and --max-drop; without, a tenth of the training"
    " samples is held back.",
)
@click.option("--remove", metavar="SHARE", help="Remove this share of the parameters, as 70%.")
@click.option("--macs", metavar="SHARE", help="Keep this share of the multiply-accumulates.")
@click.option("--size", metavar="BYTES", help="Let the weights have this size, as 2MB.")
@click.option(
    "--max-drop",
    type=Points(),
    metavar="POINTS",
    help="Remove as much as costs at most so many percentage points on --eval before training.",
)
@click.option(
    "--apply",
    "applied",
    type=click.Path(path_type=Path),
    metavar="PLAN",
    help="Remove what this plan of 'onnxtrim prune --plan' says.",
)
@click.option("--include", multiple=True, metavar="GLOB", help="As in 'onnxtrim prune'.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="As in 'onnxtrim prune'.")
@click.option(
    "--align", default="1", metavar="NUMBER|auto", show_default=True, help="As there, too."
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Passes over the samples.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Samples per step.",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    default=3e-3,
    show_default=True,
    help="The largest; it rises at first and falls to 0.",
)
@click.option(
    "--labels",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Share of the labels in the loss, if the samples have any.",
)
@click.option(
    "--patience",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Stop after so many passes without improvement.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the order."
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="Write the state here after each pass and each minute; the same command goes on from it.",
)
@click.option("--opset", type=click.IntRange(min=11), help="Version of ONNX's operator set.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Model to write."
)
@with_json
def command(
    callable_: str,
    weights: Path | None,
    shapes: tuple[str, ...],
    names: tuple[str, ...],
    fixed_batch: bool,
    data: str,
    train: str | None,
    evaluation: str | None,
    remove: str | None,
    macs: str | None,
    size: str | None,
    max_drop: float | None,
    applied: Path | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    align: str,
    epochs: int,
    batch: int,
    learning_rate: float,
    labels: float,
    patience: int,
    seed: int,
    checkpoint: Path | None,
    opset: int | None,
    output: Path,
    as_json: bool,
) -> None:
    """Prune a torch module, train it to give what it gave before, and export it to ONNX.

    MODULE:FUNCTION is called without arguments and gives the trained module, for example
    mypkg.models:build, or --weights are loaded into it. The pruned module is trained against the
    outputs of the original (distillation): no labels are needed. After each pass it is judged on
    samples that it is not trained on, and the best state is exported; the state before training
    counts. Needs the extra 'torch'.

    \b
    Example:
      onnxtrim finetune mypkg.models:build --weights w.pt --input 1x3x224x224 --input-name x \\
        --data calib.npz --remove 90% --checkpoint run.ckpt -o small.onnx
      onnxtrim finetune mypkg.models:build --weights w.pt --input 1x784 --input-name x \\
        --data calib.npz --apply plan.json -o small.onnx
    """
    from onnxtrim.export.from_torch import (
        export_module,
        load_callable,
        load_weights,
        parse_shape,
        random_inputs,
        require_torch,
    )
    from onnxtrim.toolkit.distill import Options

    require_torch()
    budget = budget_of(remove, macs, size, max_drop)
    if (budget is None) == (applied is None):
        raise click.UsageError(
            "give one of --remove, --macs, --size and --max-drop, or a plan with --apply"
        )
    if applied is not None and (include or exclude or align != "1"):
        raise click.UsageError("--apply takes everything from the plan: leave the others out")
    if max_drop is not None and evaluation is None:
        raise click.UsageError("--max-drop needs --eval")
    files = [Path(name) for name in (data, train, evaluation) if name is not None]
    check_output(output, weights, applied, *files)
    check_output(checkpoint, weights, applied, *files, output)
    options = Options(epochs, batch, learning_rate, labels, patience, seed)
    options.check()
    Limits.make(include, exclude, align)
    module = load_callable(callable_)
    if weights is not None:
        load_weights(module, weights)
    examples = random_inputs([parse_shape(shape) for shape in shapes])
    with tempfile.TemporaryDirectory() as folder, progress_bar() as report:
        original = Path(folder) / "original.onnx"
        export_module(
            module,
            examples,
            original,
            input_names=list(names) or None,
            dynamic_batch=not fixed_batch,
            opset=opset,
        )
        inputs = model_inputs(open_session(str(original), RunOptions()))
        for name in (train, evaluation):  # told before any work
            if name is not None:
                open_data(name, inputs)
        if budget is not None:
            result = trim(
                original,
                data,
                **{budget.kind.replace("-", "_"): budget.value},  # type: ignore[arg-type]
                evaluation=evaluation if max_drop is not None else None,
                include=include,
                exclude=exclude,
                align=align,
                progress=report,
            )
        else:
            assert applied is not None  # there is no budget
            result = _planned(original, applied, data)
        warn(result.warnings)
        trained = result.distill(
            module,
            data if train is None else train,
            validation=evaluation,
            example_inputs=examples,
            options=options,
            checkpoint=checkpoint,
            progress=report,
        )
    warn(trained.warnings)
    exported = trained.export(output, opset=opset)
    value = {
        "schema": "onnxtrim.finetune/1",
        "output": str(output),
        **result.to_json(),
        "distillation": trained.to_json(),
        "opset": exported.opset,
        "max_error": exported.max_error,
    }
    if as_json:
        print_json(value)
    else:
        _print(result, trained, exported.max_error)
    say(f"written: {output}; measure it beside the original: onnxtrim compare --help")


def _planned(original: Path, applied: Path, data: str) -> TrimResult:
    """The model pruned and repaired as a plan says."""
    plan = Plan.load(applied)
    prepared, source = prepare(original, data, sizes=plan.inputs)
    plan.require(prepared.analysis, prepared.sha256, str(applied))
    return apply_plan(prepared, plan, mender_of(plan, prepared, source, None, None, None), source)


def _print(result: TrimResult, trained: Distilled, max_error: float) -> None:
    rows = [
        [
            str(epoch.epoch) + (" (kept)" if epoch.epoch == trained.kept else ""),
            "" if epoch.loss is None else f"{epoch.loss:.4g}",
            f"{epoch.validation.loss:.4g}",
            f"{epoch.validation.divergence:.3g}",
            *(_share(share) for share in (epoch.validation.agreement, epoch.validation.accuracy)),
        ]
        for epoch in trained.history
    ]
    columns = ["epoch", "loss", "validation", "divergence", "agreement", "accuracy"]
    console = out()
    console.print(result.summary())
    console.print(table(f"Distillation, {trained.samples:,} samples", columns, rows))
    console.print(f"the exported model equals the module within {max_error:.1e} of its scale")


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"
