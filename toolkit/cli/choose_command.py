"""``onnxtrim choose``."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from onnxtrim.bench.data import open_data
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.gate import judge, load_policy, measure_for
from onnxtrim.bench.gate.choice import choose_by
from onnxtrim.bench.gate.measure import deadline
from onnxtrim.bench.model_file import model_sha256
from onnxtrim.bench.run_folder import Run, load_run
from onnxtrim.bench.session import RunOptions
from onnxtrim.bench.signature import check_models
from onnxtrim.toolkit.cli.common import (
    check_output,
    out,
    parse_shapes,
    print_json,
    progress_bar,
    say,
    warn,
    with_json,
    with_shape,
)
from onnxtrim.toolkit.cli.gate_output import Outputs, judged_anyway, refusals, tell, with_outputs
from onnxtrim.toolkit.cli.measuring import measured


@click.command("choose")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--policy", required=True, metavar="POLICY", help="What must be shown.")
@click.option("--target", metavar="NAME", help="Which target of the policy.")
@click.option(
    "--data",
    metavar="NPZ|FOLDER|MODULE:FUNCTION",
    help="Samples with labels that had no part in the sweep; on them the gate confirms the choice.",
)
@click.option("--original", type=click.Path(path_type=Path), help="The original, if it was moved.")
@click.option("--no-confirm", is_flag=True, help="Only name the candidate; nothing is shown then.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of all randomness.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="JSON",
    help="Also write what the gate measured here.",
)
@with_shape
@with_outputs
@with_json
def command(
    run: Path,
    policy: str,
    target: str | None,
    data: str | None,
    original: Path | None,
    no_confirm: bool,
    seed: int,
    output: Path | None,
    shapes: Sequence[str],
    as_json: bool,
    **outputs: Any,
) -> None:
    """Choose the best candidate of a sweep by a policy, and confirm it once by the gate.

    Of the candidates in RUN whose intervals lie inside all limits, the one with the lowest latency
    is chosen, then memory, then size. Chosen among many it looks better than it is; so the gate
    measures it anew, on data that had no part in the choice, once, and its verdict counts.

    \b
    Example:
      onnxtrim choose runs/first --policy onnxtrim-gate.toml --data test.npz
    """
    told = Outputs(**outputs)
    told.check(*(file for file in (Path(policy), Path(data or policy)) if file.exists()))
    with refusals(told):
        loaded = load_run(run)
        asked = load_policy(policy)
        chosen = asked.target(target)
        found = choose_by(loaded, chosen)
        model = loaded.model_path(found.candidate)
        before = original or Path(str(loaded.spec.model["path"]))
        if not no_confirm:
            _check_files(loaded, before, data)
        if not as_json:
            out().print(
                f"{found.candidate.id} ({model}): the best of {found.fitting} that fit, of"
                f" {found.tried} candidates"
            )
        if found.unknown:
            say(f"left to the gate, for the sweep did not measure it: {', '.join(found.unknown)}")
        if no_confirm:
            if as_json:
                print_json(
                    {
                        "schema": "onnxtrim.choice/1",
                        "candidate": found.candidate.id,
                        "model": str(model),
                        "candidates_tried": found.tried,
                        "candidates_fitting": found.fitting,
                    }
                )
            say("next: confirm it by 'onnxtrim gate' on data that had no part in the sweep")
            return
        check_output(output, before, model)
        judged = functools.partial(judge, policy=asked, target=target, tried=found.tried)
        with (
            measured(output, before, model, data=data) as write,
            judged_anyway(judged, write, told, as_json=as_json),
            progress_bar() as report,
        ):
            result = measure_for(
                asked,
                before,
                model,
                target=target,
                data=data,
                sizes=parse_shapes(shapes),
                seed=seed,
                until=deadline(asked),
                progress=report,
            )
            write(result)
        warn(result.warnings)
        tell(judged(result), told, as_json=as_json)


def _check_files(run: Run, original: Path, data: str | None) -> None:
    """The original must be the sweep's, and the data must not."""
    if not original.is_file():
        raise InputError(f"{original}: the sweep's original is not there; give it with --original")
    if model_sha256(original) != run.spec.model.get("sha256"):
        raise InputError(f"{original}: is not the sweep's original (its hash differs)")
    if data is None:
        return
    digest = open_data(data, check_models([original], RunOptions()), any_labels=True).sha256
    for used in (run.spec.data, run.spec.eval):
        if used is not None and used.get("sha256") == digest:
            raise InputError(
                f"{data}: the sweep used these samples, and what was chosen on them looks better"
                " than it is; give others"
            )
