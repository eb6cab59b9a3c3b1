"""``onnxtrim bind``."""

from __future__ import annotations

from pathlib import Path

import click

from onnxtrim.bench.errors import InputError
from onnxtrim.export.bind import bind_inputs
from onnxtrim.toolkit.cli.common import MODEL, check_output, print_json, say, with_json


@click.command("bind")
@MODEL
@click.argument("values", nargs=-1, required=True, metavar="NAME=VALUE...")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Model to write."
)
@with_json
def command(model: Path, values: tuple[str, ...], output: Path, as_json: bool) -> None:
    """Give inputs of MODEL a fixed value, so that branches on them can be pruned.

    Several numbers are separated by commas.

    \b
    Example:
      onnxtrim bind vad.onnx sr=16000 -o vad16k.onnx
    """
    check_output(output, model)
    bound = dict(map(_parse, values))
    left = bind_inputs(model, bound, output)
    if as_json:
        print_json({"schema": "onnxtrim.bind/1", "inputs": left, "output": str(output)})
    say(f"written: {output}, with inputs {', '.join(left)}; next: onnxtrim inspect {output}")


def _parse(text: str) -> tuple[str, float | list[float]]:
    name, equals, numbers = text.rpartition("=")
    try:
        found = [float(number) for number in numbers.split(",")]
    except ValueError:
        found = []
    if not name or not equals or not found:
        raise InputError(f"{text!r}: must look like sr=16000")
    return name, found[0] if len(found) == 1 else found
