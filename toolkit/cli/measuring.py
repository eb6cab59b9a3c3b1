"""What the commands that measure share: their options, the settings from them, verdict, files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from onnxtrim.bench.errors import InputError, WorkerError
from onnxtrim.bench.latency import Protocol
from onnxtrim.bench.looks import CODES, FAIL
from onnxtrim.bench.measurement import Measurement
from onnxtrim.bench.result_file import check_result_path, save_result
from onnxtrim.bench.session import RunOptions
from onnxtrim.bench.settings import Settings
from onnxtrim.toolkit.cli.common import (
    F,
    check_output,
    out,
    parse_shapes,
    print_json,
    say,
    warn,
    with_options,
)
from onnxtrim.toolkit.cli.layers import print_profile
from onnxtrim.toolkit.cli.metrics import print_metrics

_SHARED = (
    click.option(
        "--launches",
        type=click.IntRange(min=2),
        default=8,
        show_default=True,
        help="Fresh starts of each model; each gives one value of the latency interval.",
    ),
    click.option(
        "--rounds",
        type=click.IntRange(min=2),
        help="Rounds of about 4 ms per model and launch, an even number (default: 24 to 80 by the"
        " time of a call, and more if the first launches say that it is worth it).",
    ),
    click.option(
        "--batch",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Samples per call in latency and memory.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Of all randomness."),
    click.option("--no-latency", is_flag=True, help="Leave latency and load time out."),
    click.option("--no-memory", is_flag=True, help="Leave memory out."),
    click.option(
        "-x",
        "--threads",
        type=click.IntRange(min=1),
        help="Intra-op threads of ONNX Runtime (default: the CPUs this process may use).",
    ),
)

_OWN = (
    click.option(
        "--limit",
        type=click.FloatRange(min=0, min_open=True),
        metavar="RATIO",
        help="Largest latency ratio (median, candidate over original) that passes, as 0.8 or"
        " 1.02; launches go on until it is decided, 24 at most. Exit code 0 pass, 1 fail,"
        " 3 inconclusive.",
    ),
    click.option("--no-copy", is_flag=True, help="Don't run the original against itself, too."),
    click.option(
        "--paced",
        "hertz",
        type=click.FloatRange(min=0, min_open=True),
        metavar="HZ",
        help="So many calls a second, asleep in between; else one call after another.",
    ),
    click.option(
        "--budget-ms",
        type=click.FloatRange(min=0, min_open=True),
        metavar="MS",
        help="Tell the share of calls that take longer.",
    ),
    click.option(
        "--throughput",
        is_flag=False,
        flag_value=8,
        type=click.IntRange(min=1),
        metavar="[BATCH]",
        help="Also samples per second, of one thread and of all, for one sample (or --batch) per"
        " call and for so many (8).",
    ),
    click.option(
        "--metric",
        "metrics",
        multiple=True,
        metavar="NAME|MODULE:FUNCTION",
        help="Of accuracy: top1 (default), top5, f1, auc, mae, rmse, of two models also cosine and"
        " kl, or a function of yours (outputs, labels) that gives a number per sample; repeatable.",
    ),
    click.option(
        "-I",
        "--generated-inputs",
        "generated",
        is_flag=True,
        help="Latency and memory on random inputs, although there is data; no gate judges that.",
    ),
    click.option(
        "--cold",
        is_flag=True,
        help="Load from the disk: take the models out of the page cache before each start, as far"
        " as the system does that.",
    ),
    click.option(
        "--profile",
        is_flag=True,
        help="Show where the time goes, layer by layer, and which layers a smaller model made"
        " faster; measured apart, in shares.",
    ),
    click.option("--plain-call", is_flag=True, help="Call 'run', not 'run_with_iobinding'."),
    click.option(
        "-e", "--provider", default="cpu", show_default=True, help="Execution provider, as cpu."
    ),
    click.option("-A", "--no-arena", is_flag=True, help="Switch the memory arena off."),
    click.option("-M", "--no-memory-pattern", is_flag=True, help="Switch memory patterns off."),
    click.option("-z", "--denormal-as-zero", is_flag=True, help="Numbers near 0 count as 0."),
    click.option("--spin", is_flag=True, help="Let waiting threads spin."),
    click.option(
        "-C",
        "--config",
        multiple=True,
        metavar="KEY=VALUE",
        help="Entry of the session's configuration; repeatable.",
    ),
    click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        metavar="JSON",
        help="Also write the result here, and all calls into an .npz beside it.",
    ),
    click.option(
        "--from",
        "source",
        type=click.Path(path_type=Path),
        metavar="JSON",
        help="Measure nothing: read the result that --output wrote.",
    ),
)


def with_measuring(function: F) -> F:
    """Add the options of every measurement."""
    return with_options(function, _SHARED)


def with_protocol(function: F) -> F:
    """Add the options of a measurement that stands for itself."""
    return with_options(function, (*_SHARED, *_OWN))


def settings(
    threads: int | None,
    launches: int,
    rounds: int | None,
    batch: int,
    seed: int,
    no_latency: bool,
    no_memory: bool,
    shapes: Sequence[str] = (),
    **own: Any,
) -> Settings:
    """The settings that :func:`with_measuring` or :func:`with_protocol` asked for."""
    return Settings(
        options=RunOptions(threads=threads or 0, **_run_options(own)),
        protocol=Protocol(
            launches=launches,
            rounds=rounds or 0,
            seed=seed,
            copy=bool(own) and not own["no_copy"],
            limit=own.get("limit"),
            hertz=own.get("hertz") or 0.0,
            cold=bool(own.get("cold")),
        ),
        batch=batch,
        sizes=parse_shapes(shapes),
        generated=bool(own.get("generated")),
        budget_ms=own.get("budget_ms"),
        latency=not no_latency,
        memory=not no_memory,
        throughput=own.get("throughput") or 0,
        both_arenas=bool(own),
        metrics=tuple(own.get("metrics", ())),
        profile=bool(own.get("profile")),
    )


@contextmanager
def measured(
    output: Path | None, *inputs: Path | None, data: str | None = None
) -> Iterator[Callable[[Measurement], None]]:
    """Check the output first; yield what writes a measurement there.

    What was finished before a process died is written, too.
    """
    if data is not None and Path(data).exists():
        inputs = (*inputs, Path(data))
    check_output(output, *inputs)
    if output is not None:
        check_result_path(output, *(path for path in inputs if path is not None))

    def write(found: Measurement) -> None:
        if output is not None:
            save_result(found, output)

    try:
        yield write
    except WorkerError as error:
        if isinstance(error.finished, Measurement) and output is not None:
            write(error.finished)
            say(f"what was finished is in {output}")
        raise


def refuse_other_options(what: str, *allowed: str) -> None:
    """Refuse what was given beside something that does not look at it.

    Args:
        what: The option or argument that stands for itself.
        allowed: Names of the parameters that may be given with it.

    Raises:
        InputError: Something else is given, too.
    """
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if source is click.core.ParameterSource.COMMANDLINE and name not in (*allowed, "as_json"):
            told = parameter.opts[-1] if parameter.param_type_name == "option" else name.upper()
            raise InputError(f"{what} does not look at {told}; leave it out")


def finish(found: Measurement, title: str, schema: str, *, as_json: bool) -> None:
    """Print a measurement, warn, and leave with the exit code of its verdicts."""
    warn(found.warnings)
    if as_json:
        print_json({**found.to_json(), "schema": schema})
    else:
        print_metrics(title, found.metrics, paired=found.original is not None)
        if "profile" in found.details:
            print_profile(found.details["profile"])
    told, codes = [], []
    if found.verdict is not None:
        told.append(found.verdict.words())
        codes.append(CODES[found.verdict.answer])
    if found.latency_verdict is not None:
        told.append(found.latency_verdict.words())
        codes.append(CODES[found.latency_verdict.verdict])
    if not as_json:
        for text in told:
            out().print(text)
    if found.details.get("not_finished"):
        say(f"error: not finished: {found.details['not_finished']}")
        codes.append(WorkerError.exit_code)
    if codes:
        raise click.exceptions.Exit(CODES[FAIL] if CODES[FAIL] in codes else max(codes))


def _run_options(own: dict[str, Any]) -> dict[str, Any]:
    if not own:
        return {}
    config = [tuple(text.partition("=")[::2]) for text in own["config"]]
    for text, (key, value) in zip(own["config"], config, strict=True):
        if not key or not value:
            raise InputError(f"--config {text!r}: must look like KEY=VALUE")
    return {
        "provider": own["provider"],
        "arena": not own["no_arena"],
        "memory_pattern": not own["no_memory_pattern"],
        "denormal_as_zero": own["denormal_as_zero"],
        "spinning": own["spin"],
        "plain": own["plain_call"],
        "config": config,
    }
