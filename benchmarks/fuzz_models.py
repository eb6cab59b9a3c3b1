"""The long run of the fuzz: what the commands do with thousands of damaged models.

::

    python -m benchmarks.fuzz_models --count 500      # for each net; minutes
    python -m benchmarks.fuzz_models --job mlp:17     # one of them, again
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from onnxtrim.bench.files import write_text
from tests.mutants import NETS
from tests.watched import watch

RESULT = Path(__file__).parent / "results" / "fuzz.json"


def main() -> int:
    """Run, print what is wrong, write the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500, help="mutants of each net")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--net", choices=NETS, action="append", help="only these nets")
    parser.add_argument("--job", action="append", help="only these mutants; nothing is written")
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.count)
    jobs = options.job or [f"{net}:{seed}" for net in options.net or NETS for seed in seeds]
    start = time.perf_counter()
    codes: dict[str, Counter[str]] = {}
    wrong: list[dict[str, Any]] = []
    slowest, biggest = 0.0, 0
    for outcome in watch(jobs, "tests.mutants"):
        slowest, biggest = max(slowest, outcome.seconds), max(biggest, outcome.memory)
        net = outcome.job.partition(":")[0]
        codes.setdefault(f"{net} {outcome.command}", Counter())[f"exit {outcome.code}"] += 1
        if complaint := outcome.complaint():
            wrong.append({"job": outcome.job, "command": outcome.command, "what": complaint})
            print(f"{outcome.job} {outcome.command}: {complaint}\n  {outcome.line.strip()}")
        elif options.job:
            print(f"{outcome.job} {outcome.command}: {outcome.code} {outcome.line.strip()}")
        sys.stdout.flush()
    value = {
        "jobs": len(jobs),
        "wrong": wrong,
        "seconds": round(time.perf_counter() - start),
        "slowest_command_seconds": round(slowest, 2),
        "largest_growth_mib": biggest >> 20,
        "outcomes": {name: dict(sorted(counts.items())) for name, counts in codes.items()},
    }
    if not options.job:
        write_text(options.output, json.dumps(value, indent=2) + "\n")
    print(f"{len(jobs)} mutants, {len(wrong)} wrong, {value['seconds']} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
