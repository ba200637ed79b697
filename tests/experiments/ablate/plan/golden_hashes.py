"""Hashes of every cell that the repository's matrix declares, at every scale, as when last looked at.

`python -m tests.experiments.ablate.plan.golden_hashes` writes them anew; a commit that changes them says why. The
store, the judge and the files of weights are stand-ins, so that the hashes are a function of the matrix and its
configs alone.
"""

import json
from pathlib import Path

from experiments.ablate.matrix.expand import expand
from experiments.ablate.matrix.load import load_matrix
from experiments.ablate.plan.build import build_plan
from experiments.config.resolve import resolve
from tests.experiments.ablate.support import REPOSITORY, inputs

FILE = REPOSITORY / "tests" / "golden" / "hashes.json"


def hashes() -> dict[str, dict[str, str]]:
    """`train_hash protocol_hash` of each cell, by scale and by `table row`."""
    matrix = load_matrix(REPOSITORY / "ablations.yaml")
    found: dict[str, dict[str, str]] = {}
    for scale in matrix.scales:
        cells = expand(matrix, scale, [0])
        plan, _ = build_plan(matrix, cells, set(), Path("runs"), resolve, inputs())
        found[scale] = {f"{cell.table} {cell.row}": f"{cell.train_hash} {cell.protocol_hash}" for cell in plan.cells}
    return found


if __name__ == "__main__":
    FILE.write_text(json.dumps(hashes(), indent=1) + "\n")
