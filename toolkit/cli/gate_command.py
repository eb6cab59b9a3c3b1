"""``onnxtrim gate``."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from onnxtrim.bench import looks
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.files import sha256_file, write_text
from onnxtrim.bench.gate import (
    Judgement,
    check_result,
    judge,
    load_policy,
    measure_for,
    parse_policy,
)
from onnxtrim.bench.gate.draft import draft
from onnxtrim.bench.gate.measure import deadline, settings_for
from onnxtrim.bench.gate.plan import FLIPS, LAUNCH_SECONDS, plan
from onnxtrim.bench.measurement import Measurement
from onnxtrim.bench.model_file import check_model_file, model_sha256
from onnxtrim.bench.result_file import load_result
from onnxtrim.toolkit.cli.common import (
    check_output,
    out,
    parse_shapes,
    print_json,
    progress_bar,
    say,
    table,
    warn,
    with_json,
    with_shape,
)
from onnxtrim.toolkit.cli.gate_output import Outputs, judged_anyway, refusals, tell, with_outputs
from onnxtrim.toolkit.cli.measuring import measured

_MEASURE = "run"
_POLICY = click.argument("policy", metavar="POLICY")
_TARGET = click.option("--target", metavar="NAME", help="Which target of the policy.")


class _Gate(click.Group):
    """``gate POLICY`` measures and judges; a subcommand's name does something else."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click."""
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = [_MEASURE, *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click."""
        return [name for name in super().list_commands(ctx) if name != _MEASURE]


@click.group("gate", cls=_Gate)
def command() -> None:
    """Judge a candidate by a policy: pass, fail, or not enough evidence.

    ``onnxtrim gate POLICY`` measures both models here and now, as long as it takes to decide every
    rule, and leaves with exit code 0 (pass), 1 (fail), 2 (bad policy or input), 3 (not enough
    evidence) or 4 (the measurement broke). POLICY is a TOML file, or a preset:
    onnxtrim:edge-default, onnxtrim:server-default, onnxtrim:accuracy-only. See
    'onnxtrim gate run --help' for all options.

    \b
    Example:
      onnxtrim gate init --from result.json -o onnxtrim-gate.toml
      onnxtrim gate onnxtrim-gate.toml --original model.onnx --candidate small.onnx --data test.npz
      onnxtrim gate onnxtrim-gate.toml --from result.json --junit gate.xml
    """


@command.command(_MEASURE)
@_POLICY
@click.option("--original", type=click.Path(path_type=Path), help="The model that is in use.")
@click.option("--candidate", type=click.Path(path_type=Path), help="The model to be released.")
@click.option(
    "--data",
    metavar="NPZ|FOLDER|MODULE:FUNCTION",
    help="Samples with labels that had no part in making or choosing the candidate.",
)
@_TARGET
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    metavar="JSON",
    help="Measure nothing: judge the result that --output wrote. Files that are given must be those"
    " that it is about.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="JSON",
    help="Also write what was measured here, and all calls into an .npz beside it.",
)
@click.option("--strict", is_flag=True, help="Let rules of level warn decide, too.")
@click.option(
    "--on-inconclusive",
    metavar="retry:N",
    help="Measure anew up to N times where it can't be told; each attempt gets its part of alpha.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of all randomness.")
@with_shape
@with_outputs
@with_json
def measure_and_judge(
    policy: str,
    original: Path | None,
    candidate: Path | None,
    data: str | None,
    target: str | None,
    source: Path | None,
    output: Path | None,
    strict: bool,
    on_inconclusive: str | None,
    seed: int,
    shapes: Sequence[str],
    as_json: bool,
    **outputs: Any,
) -> None:
    """Measure CANDIDATE against ORIGINAL as far as POLICY asks, and judge."""
    told = Outputs(**outputs)
    files = (Path(policy), original, candidate, source, Path(data) if data else None)
    told.check(*(path for path in files if path is not None and path.exists()))
    with refusals(told):
        asked = load_policy(policy)
        asked = asked.strict() if strict else asked
        chosen = asked.target(target)
        warn([rule.doubt for rule in chosen.rules if rule.doubt])
        attempts = 1 + _retries(on_inconclusive)
        if source is not None:
            if output is not None or attempts > 1:
                raise InputError("--from measures nothing; leave --output, --on-inconclusive out")
            found = load_result(source)
            hashes = _hashes(found, original, candidate, data)
            check_result(found, asked, hashes, settings_for(asked, chosen).to_json())
            if found.details.get("policy_sha256", asked.sha256) != asked.sha256:
                say(f"note: {source} was measured for another policy; it is judged by {policy}")
            tell(judge(found, asked, target), told, as_json=as_json)
        if original is None or candidate is None:
            raise InputError("give --original and --candidate, or --from a result")
        for path in (original, candidate):
            check_model_file(path)
        judged = functools.partial(judge, policy=asked, target=target)
        until, sizes = deadline(asked), parse_shapes(shapes)

        def attempt(number: int, write: Callable[[Measurement], None]) -> Judgement:
            with progress_bar() as report:
                found = measure_for(
                    asked,
                    original,
                    candidate,
                    target=target,
                    data=data,
                    sizes=sizes,
                    seed=seed + number,
                    attempts=attempts,
                    until=until,
                    progress=report,
                )
            warn(found.warnings)
            write(found)
            return judged(found)

        with (
            measured(output, original, candidate, data=data) as write,
            judged_anyway(judged, write, told, as_json=as_json),
        ):
            judgement = attempt(0, write)
            for number in range(1, attempts):
                over = until is not None and time.monotonic() > until
                if judgement.verdict != "inconclusive" or over:
                    break
                say(f"{judgement.words}\nnot decided, attempt {number + 1} of {attempts}")
                judgement = attempt(number, write)
    tell(judgement, told, as_json=as_json)


@command.command("check")
@_POLICY
@with_json
def check(policy: str, as_json: bool) -> None:
    """Check POLICY and measure nothing."""
    found = load_policy(policy)
    if as_json:
        rules = {name: len(target.rules) for name, target in found.targets.items()}
        print_json({"schema": "onnxtrim.policy-check/1", "targets": rules, "sha256": found.sha256})
        return
    for name, target in found.targets.items():
        rows = [[rule.name, rule.limit(), rule.level] for rule in target.rules]
        out().print(table(f"target {name}", ["metric", "limit", "level"], rows))
    doubts = [rule.doubt for target in found.targets.values() for rule in target.rules]
    warn([doubt for doubt in dict.fromkeys(doubts) if doubt])
    for waiver in found.waivers:
        out().print(f"waived until {waiver.expires}: {waiver.metric} ({waiver.reason})")
    say(
        f"next: onnxtrim gate {policy} --original model.onnx --candidate small.onnx --data test.npz"
    )


@command.command("plan")
@_POLICY
@_TARGET
@click.option("--samples", type=click.IntRange(min=1), help="Labelled samples that there are.")
@click.option(
    "--flips",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=FLIPS,
    show_default=True,
    help="Share of samples to which the models are expected to give unlike answers.",
)
@click.option(
    "--launch-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=LAUNCH_SECONDS,
    show_default=True,
    help="Time of a launch of both models.",
)
@with_json
def plan_command(
    policy: str,
    target: str | None,
    samples: int | None,
    flips: float,
    launch_seconds: float,
    as_json: bool,
) -> None:
    """Tell how many samples and seconds the rules of POLICY need, and what can't be decided."""
    asked = load_policy(policy)
    chosen = asked.target(target)
    needs = plan(asked, chosen, samples=samples, flips=flips, launch_seconds=launch_seconds)
    seconds = max((need.seconds for need in needs if need.launches), default=0.0)
    if as_json:
        rows = [
            {
                "metric": need.rule.name,
                "samples": need.samples,
                "launches": need.launches,
                "possible": need.possible,
                "told": need.told,
            }
            for need in needs
        ]
        print_json({"schema": "onnxtrim.gate-plan/1", "rules": rows, "most_seconds": seconds})
    else:
        words = {True: "yes", False: "NO", None: ""}
        rows_told = [
            [need.rule.name, need.rule.limit(), words[need.possible], need.told] for need in needs
        ]
        out().print(
            table(f"target {chosen.name}", ["metric", "limit", "enough", "needs"], rows_told)
        )
        if seconds:
            out().print(f"launches take at most {seconds:.0f} s")
    if any(need.possible is False and need.rule.level == "error" for need in needs):
        say("a required rule can't be decided: the gate would not pass")
        raise click.exceptions.Exit(3)


@command.command("init")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    metavar="JSON",
    required=True,
    help="A result that 'onnxtrim compare -o' wrote for a candidate that is good enough.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("onnxtrim-gate.toml"),
    show_default=True,
    help="Where to write the policy.",
)
@with_json
def init(source: Path, output: Path, as_json: bool) -> None:
    """Write a commented policy whose limits lie a little beyond what was measured."""
    if output.exists():
        raise InputError(f"{output}: is there already; choose another path with -o")
    check_output(output, source)
    found = load_result(source)
    for name, option in (("cold", "--cold"), ("generated", "-I")):
        if found.settings.get(name):
            raise InputError(f"{source}: a gate measures without {option}; measure so, too")
    if found.latency is not None and len(found.latency.launches) < looks.LOOKS[0]:
        say(
            f"note: of {len(found.latency.launches)} launches only; limits from"
            f" {looks.LOOKS[0]} on are nearer to the truth"
        )
    text = draft(found, source.name)
    policy = parse_policy(text, str(output))  # what is written is one
    write_text(output, text)
    if as_json:
        print_json({"schema": "onnxtrim.gate-init/1", "output": str(output)})
    say(f"written: {output} ({len(policy.target().rules)} rules)")
    say(
        f"next: onnxtrim gate {output} --original model.onnx --candidate small.onnx --data test.npz"
    )


def _retries(text: str | None) -> int:
    if text is None:
        return 0
    word, _, number = text.partition(":")
    if word != "retry" or not number.isdecimal() or not 1 <= int(number) <= 9:
        raise InputError(f"--on-inconclusive is {text!r}, must look like retry:2 (1 to 9)")
    return int(number)


def _hashes(
    found: Measurement, original: Path | None, candidate: Path | None, data: str | None
) -> dict[str, str | None]:
    """Of the files that are given, or else lie where the result says."""

    def of_model(path: Path | None, recorded: str) -> str | None:
        if path is None and not Path(recorded).is_file():
            return None
        return model_sha256(path or Path(recorded))

    if data is not None and not Path(data).is_file():
        raise InputError(f"--data {data}: beside --from it must be a file; leave it out")
    before = (found.original or found.model)["path"]
    return {
        "original": of_model(original, before),
        "candidate": of_model(candidate, found.model["path"]),
        "data": None if data is None else sha256_file(data),
    }
