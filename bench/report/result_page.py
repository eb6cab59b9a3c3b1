"""The report of one result: a model, or a candidate beside its original."""

from __future__ import annotations

import math
import os
from typing import Any

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.launches import CANDIDATE, COPY, ORIGINAL
from onnxtrim.bench.measurement import Measurement
from onnxtrim.bench.report import forest, result_sections, shell
from onnxtrim.bench.report.judgement import Judgement


def write_result_report(
    found: Measurement,
    path: str | os.PathLike[str],
    judgement: Judgement | None = None,
) -> None:
    """Write the report of a result as one HTML file of less than 2 MB.

    Args:
        found: What was measured, see :func:`onnxtrim.bench.result_file.load_result`.
        path: The HTML file.
        judgement: What a policy says of it; its words stand at the top.

    Raises:
        InputError: The file can't be written there, or the details of the result are damaged.
    """
    rows = forest.rows(found, judgement)
    try:
        texts = result_sections.texts(found, judgement, rows)
        data = result_data(found, judgement)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"the details of the result are damaged ({type(error).__name__}: {error});"
            " measure again"
        ) from error
    shell.write_page(path, "result.html", texts, data, ["result.js"])


def result_data(found: Measurement, judgement: Judgement | None = None) -> dict[str, Any]:
    """What the plots are drawn from.

    ``verdict``: the sentence at the top; ``answer``: that of the policy, if there was one.
    ``forest``: the ratios. ``launches``: of the median time in each launch the ratio, or without
    an original the ms; those of the original's ``copies``; the interval, and limits.
    """
    rows = forest.rows(found, judgement)
    return {
        "schema": shell.SCHEMA,
        "verdict": result_sections.verdict(found, judgement),
        "answer": None if judgement is None else judgement.verdict,
        "forest": {"id": result_sections.FOREST, "rows": [forest.to_json(row) for row in rows]},
        "launches": _launches(found, judgement),
    }


def _launches(found: Measurement, judgement: Judgement | None) -> dict[str, Any] | None:
    latency = found.latency
    if latency is None:
        return None
    pair = len(latency.calls) > CANDIDATE
    if pair:
        values, name = latency.logs(0.5), forest.P50
    else:
        name = "latency.p50"
        values = [launch.median_log(ORIGINAL, 0.5) for launch in latency.launches]
    copies = latency.logs(0.5, COPY) if len(latency.calls) > COPY else []
    metric = found.metrics[name]
    limits = forest.limits_of(found, judgement).get(name, {})
    return {
        "id": result_sections.LAUNCHES,
        "pair": pair,
        "values": [shell.short(math.exp(log)) for log in values],
        "copies": [shell.short(math.exp(log)) for log in copies],
        "interval": [shell.short(number) for number in (metric.value, metric.low, metric.high)],
        "limits": [[bound, text] for bound, text in limits.items()],
    }
