"""``onnxtrim export``."""

from __future__ import annotations

from pathlib import Path

import click

from onnxtrim.toolkit.cli.common import check_output, out, print_json, say, with_json


@click.command("export")
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
    opset: int | None,
    output: Path,
    as_json: bool,
) -> None:
    """Export a torch module to ONNX and prove that it computes the same.

    MODULE:FUNCTION is called without arguments and gives the module, for example
    mypkg.models:build. Parameters keep their names. Needs the extra 'torch'.

    \b
    Example:
      onnxtrim export mypkg.models:build --weights w.pt --input 1x3x224x224 -o model.onnx
    """
    from onnxtrim.export.from_torch import (
        export_module,
        load_callable,
        load_weights,
        parse_shape,
        random_inputs,
        require_torch,
    )

    require_torch()
    check_output(output, weights)
    inputs = random_inputs([parse_shape(shape) for shape in shapes])
    module = load_callable(callable_)
    if weights is not None:
        load_weights(module, weights)
    report = export_module(
        module,
        inputs,
        output,
        input_names=list(names) or None,
        dynamic_batch=not fixed_batch,
        opset=opset,
    )
    value = {
        "schema": "onnxtrim.export/1",
        "output": str(report.path),
        "inputs": {name: list(shape) for name, shape in report.inputs.items()},
        "outputs": {name: list(shape) for name, shape in report.outputs.items()},
        "parameters": report.parameters,
        "opset": report.opset,
        "max_error": report.max_error,
    }
    if as_json:
        print_json(value)
    else:
        out().print(
            f"{report.path}: {report.parameters:,} parameters, opset {report.opset}; equals the"
            f" module within {report.max_error:.1e} of the output's scale"
        )
    say(f"next: onnxtrim inspect {output}")
