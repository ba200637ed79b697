"""`mntp bench load` at a small size: the line that it prints, and what it refuses."""

import json
import sys
from pathlib import Path

import pytest

from data_modules.store.store import Store
from experiments.bench.load import load, write_store
from experiments.main import main

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
SMALL = {"clips": 40, "num_tokens": 8, "token_dim": 4, "words": 3, "word_dim": 6, "pooled_dim": 5, "batch_size": 4}


def test_one_line_of_json_with_rates_beside_the_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for key, value in SMALL.items() for word in (f"--{key}", str(value))]
    line = ["mntp", "bench", "load", *words, "--needed", "10", "--folder", str(tmp_path), "--workers", "1"]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit) as exit:
        main()
    assert not exit.value.code
    (line,) = capsys.readouterr().out.splitlines()
    report = json.loads(line)
    assert report["clip"] == {"tokens": [8, 4], "words": [3, 6], "pooled": [1, 5]}
    assert report["clips_per_second"].keys() == {"workers_0", "workers_1"}
    for name, rate in report["clips_per_second"].items():
        assert min(rate["cold"], rate["hot"]) > 0
        assert report["headroom"][name] == pytest.approx(rate["hot"] / 10, abs=0.01)
    assert list(tmp_path.iterdir()) == []


def test_the_store_that_it_writes_is_a_store(tmp_path: Path) -> None:
    write_store(tmp_path / "store", 10, (8, 4), {"words": (3, 6)})
    store = Store(tmp_path / "store")
    store.verify()
    batch = store.read([9, 0])
    assert batch.tokens.shape == (2, 8, 4)
    assert batch.text["words"].states.shape == (2, 3, 6)
    assert not batch.tokens[0].equal(batch.tokens[1])


def test_what_is_out_of_range_is_said() -> None:
    with pytest.raises(ValueError, match="num_tokens is 7; expected a multiple of 4"):
        load(num_tokens=7)
    with pytest.raises(ValueError, match="clips=3, batch_size=64"):
        load(clips=3)
    with pytest.raises(ValueError, match="both needed and config"):
        load(needed=1.0, config=Path("a.yaml"))
