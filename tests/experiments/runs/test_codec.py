"""A LightningModule that is no token system goes through `lightning fit`, a run, a plan and a table."""

import json
from pathlib import Path

import pytest
import yaml

from experiments.ablate.plan.options import PlanOptions
from experiments.commands import ablate
from experiments.config.lightning_cli import SuiteCLI
from experiments.config.resolve import build_data, resolve
from tests.experiments.runs.toy_codec import ToyCodec, ToyFrames

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on small data
HERE = "tests.experiments.runs.toy_codec"
CONFIG = {
    "model": {"class_path": f"{HERE}.ToyCodec", "init_args": {"width": 2}},
    "data": {"class_path": f"{HERE}.ToyFrames", "init_args": {"batch_size": 16}},
    "trainer": {
        "accelerator": "cpu",
        "max_steps": 80,  # of two optimisers: 40 batches
        "max_epochs": -1,
        "check_val_every_n_epoch": None,
        "val_check_interval": 40,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "enable_model_summary": False,
        "enable_progress_bar": False,
        "callbacks": [{"class_path": "callbacks.SkipNonFinite"}, {"class_path": "callbacks.LastCheckpoint"}],
    },
}
MATRIX = """\
format: 1
scales:
  toy: {configs: configs, eval: {judge: held_out}}
axes:
  system: {codec: {config: codec}}
  width:
    narrow: {set: {model.init_args.width: 1}}
    wide: {set: {model.init_args.width: 2}}
tables:
  codecs:
    title: how wide a code has to be
    baseline: wide
    default_rows: [narrow, wide]
    rows:
      narrow: {axes: {system: codec, width: narrow}, description: one value for a frame}
      wide: {axes: {system: codec, width: wide}, description: two values for a frame}
reference:
  like: {table: codecs, row: wide}
  rows: {}
"""


def test_lightning_fit_trains_it_with_both_optimisers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "codec.yaml").write_text(yaml.safe_dump(CONFIG))
    monkeypatch.setattr("sys.argv", ["lightning", "fit", "--config", str(tmp_path / "codec.yaml")])
    monkeypatch.chdir(tmp_path)
    suite = SuiteCLI()
    before, after = ToyCodec(), suite.model
    assert isinstance(suite.datamodule, ToyFrames) and suite.trainer.global_step == 80
    for part in ("generator", "discriminator"):
        weights = [next(getattr(codec, part).parameters()) for codec in (before, after)]
        assert not weights[0].equal(weights[1]), part
    assert suite.trainer.callback_metrics["val/codec_distance"] < 0.5


def test_its_config_resolves_with_every_default() -> None:
    resolved = resolve(CONFIG)
    assert resolved["model"]["init_args"] == {"width": 2, "adversary": 0.1, "seed": 0}
    assert resolved["data"] == {"class_path": f"{HERE}.ToyFrames", "init_args": {"batch_size": 16, "seed": 0}}
    assert isinstance(build_data(resolved), ToyFrames) and resolve(resolved) == resolved
    misspelt = CONFIG | {"data": {"class_path": f"{HERE}.ToyFrames", "init_args": {"batch_sice": 16}}}
    with pytest.raises(ValueError, match=r"'batch_sice' is not a key that data accepts; did you mean 'batch_size'\?"):
        resolve(misspelt)


@pytest.mark.slow
def test_a_matrix_trains_it_and_its_own_metric_is_the_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "codec.yaml").write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "ablations.yaml").write_text(MATRIX)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    monkeypatch.chdir(tmp_path)
    options = PlanOptions(scale="toy", seeds="1")
    assert ablate.run(options) == 0
    distances = {}
    for run_dir in (tmp_path / "runs").iterdir():
        config = yaml.safe_load((run_dir / "config.yaml").read_text())
        record = json.loads((run_dir / "run.json").read_text())
        assert record["state"] == "trained" and record["num_parameters"] > 0
        assert record["held_out_metric"] == {"name": "codec_distance", "digits": 3, "better": -1}
        metrics = json.loads(next(run_dir.glob("evals/*/metrics.json")).read_text())
        assert metrics["codec_distance"] == pytest.approx(record["held_out"]["codec_distance"], rel=1e-5)
        low, high = metrics["intervals"]["codec_distance"]
        assert low <= metrics["codec_distance"] <= high and metrics["num_held_out_clips"] == 12
        distances[config["model"]["init_args"]["width"], config["data"]["init_args"]["seed"]] = metrics[
            "codec_distance"
        ]
    assert distances.keys() == {(1, 1), (2, 1)}  # the matrix's seed reaches the data, too
    assert distances[2, 1] < distances[1, 1]
    results = (tmp_path / "results/toy/results.csv").read_text()
    assert results.count(",codec_distance,") == 2
    times = {run_dir: (run_dir / "run.json").stat().st_mtime_ns for run_dir in (tmp_path / "runs").iterdir()}
    assert ablate.run(options) == 0
    assert all((run_dir / "run.json").stat().st_mtime_ns == time for run_dir, time in times.items()), "nothing twice"
