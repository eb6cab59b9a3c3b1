"""Mutation run over the rule table: is every wrong rule noticed by the tests of the rules?

Run from the repository: ``python -m benchmarks.mutations [operator ...]``. Writes
``benchmarks/results/mutations.json`` and ``.md``; with operators, prints only their survivors.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path

from onnxtrim.bench.files import write_text
from tests.rule_mutants import Hunt, Mutant, singly

RESULTS = Path(__file__).parent / "results"

SAME = "nothing that could leave is read in another way (one slice, or as many as the input says)"

# Other survivors that are no mistakes: (operator, kind) -> why nothing can notice them.
EQUIVALENT = {
    ("Conv", "sizes dropped"): "the number of groups follows from the shape of the weight",
    ("ConvTranspose", "sizes dropped"): "the number of groups follows from the bias or the output",
}


def _operator(name: str) -> str:
    return name.partition(":")[0]


def run(operators: set[str]) -> list[tuple[Mutant, str, str]]:
    """Every mutant with what killed it, or why nothing can; survivors are told at once."""
    hunt = Hunt({k: v for k, v in singly().items() if not operators or _operator(k) in operators})
    hunt.check()
    found = []
    for mutant in hunt.mutants(operators):
        by, why = hunt.killer(mutant), ""
        if not by:
            why = EQUIVALENT.get((mutant.operator, mutant.kind), "")
            why = why or (SAME if hunt.unchanged(mutant) else "")
            if not why:
                print(f"SURVIVED {mutant.operator} | {mutant.kind} | {mutant.what}", flush=True)
        found.append((mutant, by, why))
    return found


def _status(by: str, why: str) -> str:
    return by or (f"equivalent: {why}" if why else "SURVIVED")


def write(found: list[tuple[Mutant, str, str]], seconds: float) -> None:
    """Write the list of all mutants and its summary."""
    rows = [[m.operator, m.kind, m.what, _status(by, why)] for m, by, why in found]
    lines = ",\n".join(json.dumps(row) for row in rows)
    RESULTS.mkdir(exist_ok=True)
    columns = json.dumps(["operator", "kind", "what", "killed by"])
    text = f'{{"columns": {columns}, "mutants": [\n{lines}\n]}}\n'
    write_text(RESULTS / "mutations.json", text)
    write_text(RESULTS / "mutations.md", _summary(found, seconds))


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return [*(f"| {' | '.join(row)} |" for row in lines), ""]


def _summary(found: list[tuple[Mutant, str, str]], seconds: float) -> str:
    ways = Counter(
        by.rpartition(": ")[2] if by else ("equivalent" if why else "SURVIVED")
        for _, by, why in found
    )
    lines = [
        "# Mutants of the rule table",
        "",
        "Every rule removed; in every signature two letters swapped, a letter frozen, followed",
        "or cut loose, an operand ignored; positions of Concat, Split, Slice, Gather and Pad",
        "turned or shifted; every function that adjusts sizes dropped. Each is killed by the",
        "golden groups of the tests of the rules, by the self-check, or by an error on the way.",
        "",
        f"{len(found)} mutants in {seconds:.0f} s (`python -m benchmarks.mutations`).",
        "",
        *_table(["killed by", "mutants"], [[name, str(n)] for name, n in ways.most_common()]),
    ]
    for head, key in (("kind", "kind"), ("operator", "operator")):
        counts = Counter(getattr(mutant, key) for mutant, _, _ in found)
        same = Counter(getattr(mutant, key) for mutant, by, why in found if not by and why)
        alive = Counter(getattr(mutant, key) for mutant, by, why in found if not by and not why)
        rows = [[k, str(counts[k]), str(same[k]), str(alive[k])] for k in sorted(counts)]
        lines += _table([head, "mutants", "equivalent", "survived"], rows)
    lines += ["## Not killed", ""]
    rows = [
        [m.operator, m.kind, f"`{m.what}`" if m.what else "", _status(by, why)]
        for m, by, why in found
        if not by
    ]
    return "\n".join(lines + _table(["operator", "kind", "change", "why"], rows))


def main() -> None:
    """Run, write, and fail if a mutant survived."""
    operators = set(sys.argv[1:])
    start = time.perf_counter()
    found = run(operators)
    if not operators:
        write(found, time.perf_counter() - start)
    survivors = sum(not by and not why for _, by, why in found)
    equivalent = sum(not by and bool(why) for _, by, why in found)
    print(f"{len(found)} mutants, {equivalent} equivalent, {survivors} survived")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
