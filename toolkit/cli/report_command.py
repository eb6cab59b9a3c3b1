"""``onnxtrim report``."""

from __future__ import annotations

from pathlib import Path

import click

from onnxtrim.bench.report.page import write_report
from onnxtrim.bench.report.pictures import write_plots
from onnxtrim.bench.run_folder import load_run
from onnxtrim.toolkit.cli.common import check_output, print_json, say, with_json


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="HTML file to write (default: report.html in the folder).",
)
@click.option(
    "--plots",
    type=click.Path(path_type=Path),
    help="Also write the plots as PNG files into this folder (needs the extra 'plots').",
)
@with_json
def command(run: Path, output: Path | None, plots: Path | None, as_json: bool) -> None:
    """Write one offline HTML file from RUN, the folder of a sweep, finished or not.

    \b
    Example:
      onnxtrim report runs/first -o report.html
    """
    loaded = load_run(run)
    target = output or run / "report.html"
    check_output(target, *(file for file in run.rglob("*") if file.suffix != ".html"))
    pictures: list[Path] = []
    if plots is not None:
        pictures = write_plots(loaded, plots)
    write_report(loaded, target)
    if as_json:
        files = [str(path) for path in pictures]
        print_json({"schema": "onnxtrim.report/1", "output": str(target), "plots": files})
    say(f"written: {', '.join(str(path) for path in (target, *pictures))}")
