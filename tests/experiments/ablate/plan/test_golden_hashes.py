"""Moving code renames no run: the hashes of every shipped cell are those in tests/golden/hashes.json."""

import json

from tests.experiments.ablate.plan.golden_hashes import FILE, hashes


def test_no_cell_is_another_run_than_when_last_looked_at() -> None:
    assert hashes() == json.loads(FILE.read_text())
