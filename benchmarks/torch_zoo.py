"""Write-back on the whole torch zoo: prune, write back, fine-tune, export and prune again.

::

    python -m benchmarks.torch_zoo              # all nets; some minutes
    python -m benchmarks.torch_zoo res swin     # only these; nothing is written
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch

from onnxtrim.bench.files import write_text
from tests.torch_round_trip import Trip, round_trip
from tests.torch_zoo import TORCH_ZOO

RESULT = Path(__file__).parent / "results" / "torch_zoo.json"


def main() -> int:
    """Run, print the table, write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("net", nargs="*", help="only these nets")
    parser.add_argument("--exports", type=Path, help="folder where exports are kept")
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("net           standard  parameters      parity  tuned  again  refusal")
    with tempfile.TemporaryDirectory() as folder:
        trips = []
        for name in options.net or TORCH_ZOO:
            trips.append(round_trip(name, options.exports or Path(folder), again=True))
            print(_row(trips[-1]), flush=True)
    failed = [trip.net for trip in trips if not _good(trip)]
    value = {
        "nets": len(trips),
        "written_back": sum(trip.after is not None for trip in trips),
        "refused": sum(trip.refusal is not None for trip in trips),
        "written_back_with_one_stage": [t.net for t in trips if t.first_stage is not None],
        "failed": failed,
        "largest_parity_error": max((trip.parity or 0.0 for trip in trips), default=0.0),
        "trips": [asdict(trip) for trip in trips],
    }
    if not options.net:
        write_text(options.output, json.dumps(value, indent=2) + "\n")
    print(f"{value['written_back']} written back, {value['refused']} refused, failed: {failed}")
    return 1 if failed else 0


def _good(trip: Trip) -> bool:
    """Standard nets are written back; others may be refused in words."""
    if trip.refusal is not None:
        return not trip.standard
    return bool(trip.tuned) and trip.again is not None


def _row(trip: Trip) -> str:
    standard = "yes" if trip.standard else "no"
    sizes = f"{trip.before} {'' if trip.after is None else trip.after}"
    error = "" if trip.parity is None else f"{trip.parity:.1e}"
    tuned = "" if trip.tuned is None else "yes" if trip.tuned else "NO"
    again = "" if trip.again is None else str(trip.again)
    start = f"{trip.net:13} {standard:9} {sizes:15} {error:7} {tuned:6} {again:6}"
    one = "" if trip.first_stage is None else f"[one stage: {trip.first_stage}] "
    return f"{start} {one}{trip.refusal or ''}"


if __name__ == "__main__":
    sys.exit(main())
