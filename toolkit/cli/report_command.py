"""``onnxtrim report``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.gate import check_result, judge, load_policy
from onnxtrim.bench.gate.measure import settings_for
from onnxtrim.bench.report.page import write_report
from onnxtrim.bench.report.pictures import write_plots
from onnxtrim.bench.report.result_page import write_result_report
from onnxtrim.bench.result_file import load_result, raw_path
from onnxtrim.bench.run_folder import load_run
from onnxtrim.toolkit.cli.common import check_output, print_json, say, with_json


@click.command("report")
@click.argument("source", metavar="RUN|RESULT", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="HTML file to write (default: report.html in the folder, or beside the result).",
)
@click.option(
    "--policy",
    type=click.Path(path_type=Path),
    metavar="TOML",
    help="Judge the result by these rules, and show what came of each.",
)
@click.option("--target", metavar="NAME", help="For which target of the policy.")
@click.option(
    "--plots",
    type=click.Path(path_type=Path),
    help="Also write the plots of a sweep as PNG files into this folder (needs the extra 'plots').",
)
@with_json
def command(
    source: Path,
    output: Path | None,
    policy: Path | None,
    target: str | None,
    plots: Path | None,
    as_json: bool,
) -> None:
    """Write one offline HTML file.

    From RUN, the folder of a sweep, finished or not, or from RESULT, the JSON that 'bench -o' or
    'compare -o' wrote.

    \b
    Example:
      onnxtrim report runs/first -o report.html
      onnxtrim report result.json --policy gate.toml
    """
    if target is not None and policy is None:
        raise click.UsageError("--target needs --policy")
    if source.is_file() or source.suffix == ".json":
        if plots is not None:
            raise InputError("--plots are of a sweep; save the plots of a result from its page")
        written = [_result(source, output, policy, target)]
    else:
        if policy is not None:
            raise InputError(f"--policy judges a result, and {source} is not one")
        written = _sweep(source, output, plots)
    page, *files = map(str, written)
    if as_json:
        print_json({"schema": "onnxtrim.report/1", "output": page, "plots": files})
    say(f"written: {', '.join((page, *files))}")


def _sweep(folder: Path, output: Path | None, plots: Path | None) -> list[Path]:
    loaded = load_run(folder)
    page = output or folder / "report.html"
    check_output(page, *(file for file in folder.rglob("*") if file.suffix != ".html"))
    files = [] if plots is None else write_plots(loaded, plots)
    write_report(loaded, page)
    return [page, *files]


def _result(file: Path, output: Path | None, policy: Path | None, target: str | None) -> Path:
    found = load_result(file)
    page = output or file.with_suffix(".html")
    check_output(page, file, raw_path(file), policy)
    judgement = None
    if policy is not None:
        asked = replace(load_policy(policy), require_same_host=False)  # it is shown, not released
        check_result(found, asked, settings=settings_for(asked, asked.target(target)).to_json())
        judgement = judge(found, asked, target)
    write_result_report(found, page, judgement)
    return page
