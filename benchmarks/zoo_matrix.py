"""The whole matrix of removals over both zoos.

``python benchmarks/zoo_matrix.py`` removes 5%, 30%, 70% and 95% of the units of every group, all
at once and each group alone, with three seeds, with and without alignment to 4, in both stages,
and checks each result. It prints a row per net and writes ``benchmarks/results/zoo_matrix.json``;
a net that is there already is not run again (``--fresh`` starts over).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import onnx
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from onnxtrim.bench.errors import OnnxtrimError
from onnxtrim.export.from_torch import export_module
from onnxtrim.toolkit.prepare import Prepared, prepare
from tests.torch_zoo import TORCH_ZOO
from tests.zoo import ZOO
from tests.zoo_check import ALIGNMENTS, SHARES, check_removal, stages

RESULT = Path(__file__).parent / "results" / "zoo_matrix.json"
SEEDS = range(3)


def load(name: str, folder: Path) -> Prepared:
    """A net of either zoo."""
    path = folder / f"{name}.onnx"
    if name in ZOO:
        onnx.save(ZOO[name](), path)
        return prepare(path, sizes={"height": 4, "width": 6})[0]
    torch.manual_seed(0)
    export_module(TORCH_ZOO[name].build(), TORCH_ZOO[name].examples(), path)
    return prepare(path)[0]


def run(name: str, folder: Path) -> dict[str, Any]:
    """All removals of one net."""
    start = time.perf_counter()
    net = load(name, folder)
    removals = units = 0
    failures: list[str] = []
    for number, (stage, groups) in enumerate(stages(net), start=1):
        sets = [list(groups), *([group] for group in groups if len(groups) > 1)]
        for chosen in sets:
            for share in SHARES:
                for seed in SEEDS:
                    for align in ALIGNMENTS:
                        try:
                            units += check_removal(net, stage, chosen, share, seed, align)
                            removals += 1
                        except (AssertionError, OnnxtrimError, ValueError) as error:
                            names = ", ".join(group.name for group in chosen)
                            failures.append(
                                f"stage {number} {names} {share} {seed} {align}: {error}"
                            )
    seconds = round(time.perf_counter() - start, 1)
    return {"removals": removals, "units": units, "seconds": seconds, "failures": failures}


def main() -> None:
    """Run what is missing and print all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="start over")
    parser.add_argument("--only", default="", help="nets whose name contains this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    done: dict[str, Any] = {}
    if RESULT.exists() and not options.fresh:
        done = json.loads(RESULT.read_text())["nets"]
    for name in (*ZOO, *TORCH_ZOO):
        if name in done or options.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            done[name] = run(name, Path(folder))
        row = done[name]
        print(name, row["removals"], row["units"], len(row["failures"]), row["seconds"], flush=True)
        RESULT.parent.mkdir(exist_ok=True)
        total = sum(item["removals"] for item in done.values())
        failed = sum(len(item["failures"]) for item in done.values())
        summary = {"nets": len(done), "removals": total, "failures": failed}
        RESULT.write_text(json.dumps({"summary": summary, "nets": done}, indent=1) + "\n")
    print(json.loads(RESULT.read_text())["summary"])


if __name__ == "__main__":
    main()
