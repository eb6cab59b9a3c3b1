"""The command ``onnxtrim``: one file per subcommand, loaded only when it is called."""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from typing import Any

import click

from onnxtrim.bench.errors import OnnxtrimError
from onnxtrim.bench.text import one_line

_COMMANDS = {
    "bind": "Give inputs of a model a fixed value, so that branches on them can be pruned.",
    "bench": "Measure one model in ONNX Runtime: latency, load time, memory, size.",
    "choose": "Choose a sweep's best candidate by a policy, and confirm it once.",
    "compare": "Measure a candidate against its original, paired, with intervals.",
    "demo": "Train, prune, sweep and measure a real network; minutes on a laptop.",
    "export": "Export a torch module to ONNX and prove that it computes the same.",
    "finetune": "Prune a torch module, train it to give what it gave, export it.",
    "gate": "Judge a candidate by a policy: pass, fail, or not enough evidence.",
    "inspect": "Show which units can be removed, and what is frozen and why.",
    "prune": "Remove units below two thresholds and save the smaller model.",
    "report": "Write one offline HTML file from a sweep, or from a result of bench or compare.",
    "stats": "Gather activation statistics once, for many plans.",
    "sweep": "Build and measure a grid of candidates; resumable.",
}


class _Commands(click.Group):
    """Imports a subcommand when it is needed, so that ``--help`` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"onnxtrim.toolkit.cli.{cmd_name}_command")
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Abort from None  # click would print an empty line, too

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_COMMANDS.items()))


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="onnxtrim", message="onnxtrim %(version)s")
def cli() -> None:
    """Remove the neurons and channels of a trained network that do nothing useful.

    onnxtrim finds them from activations, takes them out for real (smaller tensors, not masks)
    and proves in ONNX Runtime what was gained and lost.

    \b
    Start here:
      onnxtrim demo                                    see the whole idea on real data
      onnxtrim inspect model.onnx                      what can be removed from your model
      onnxtrim sweep model.onnx --data calib.npz --eval val.npz -o runs/first

    Results go to stdout (--json for machines), progress and messages to stderr.

    \b
    Exit codes: 0 done; 1 the answer is no (nothing could be removed, accuracy falls too far); 2 bad
    usage or input; 3 not enough evidence; 4 the work itself broke; 130 interrupted. --debug after a
    command shows the traceback.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit with its code; errors are one line on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        code = cli.main(arguments, prog_name="onnxtrim", standalone_mode=False)
    except Exception as error:
        if debug and not isinstance(error, click.exceptions.Exit):
            traceback.print_exc()
        sys.exit(_tell(error))
    if code:  # click returns the code of Exit, and a command returns nothing
        sys.exit(code)


def _tell(error: Exception) -> int:
    """Print an error in one line; return the exit code."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.exceptions.Abort):
        click.echo("interrupted; finished results are kept", err=True)
        return 130
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx is not None else "onnxtrim"
        message = one_line(error.format_message())
        click.echo(f"error: {message} (see '{command} --help')", err=True)
        return 2
    if isinstance(error, click.ClickException):
        click.echo(f"error: {one_line(error.format_message())}", err=True)
        return 2
    if isinstance(error, OnnxtrimError):
        click.echo(f"error: {one_line(str(error))}", err=True)
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        sys.stderr.close()  # the reader of our output has gone; nobody is to be told
        return 0
    name = type(error).__name__
    click.echo(f"error: internal: {name}: {one_line(str(error))} (--debug shows where)", err=True)
    return 4
