"""From cells to runs: the hash covers what changes a result and nothing else; the same cell is one run."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.ablate.matrix.expand import expand
from experiments.ablate.matrix.select import select_rows
from experiments.ablate.plan.build import build_plan
from experiments.ablate.plan.identity import NOT_IN_TRAIN_HASH, train_hash
from experiments.ablate.plan.inputs import Inputs
from experiments.ablate.plan.job import Job
from experiments.ablate.plan.plan_file import Plan, read_plan, results_folder, write_plan
from mntp.io.fingerprint import hash_json
from tests.experiments.ablate.support import REPOSITORY, SHARED, inputs, load_world, prepare_data, resolve

CONFIG: dict[str, Any] = {
    "model": {"class_path": "mntp.systems.AudioNTP", "init_args": {
        "seed": 0, "decoding": {"steps": 50}, "optimisation": {}, "backbone": {"class_path": "B", "init_args": {}}}},
    "data": {"store": "a", "num_workers": 0, "seed": 0, "batch_size": 32},
    "trainer": {
        "max_steps": 400, "logger": False, "enable_progress_bar": True,
        "callbacks": [{"class_path": "callbacks.EMA", "init_args": {"decay": 0.99}},
                      {"class_path": "callbacks.SampleLogger", "init_args": {"every": 5}}],
    },
}  # fmt: skip


def changed(key: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    node: Any = config
    *path, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    for part in path:
        node = node[part]
    node[last] = value
    return config


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.init_args.seed", 1),
        ("data.seed", 1),
        ("model.init_args.decoding", {"steps": 7}),
        ("model.init_args.optimisation", {"fused": True}),
        ("model.init_args.backbone.init_args.checkpoint_activations", True),
        ("data.store", "elsewhere"),
        ("data.num_workers", 4),
        ("trainer.logger", {"class_path": "TensorBoardLogger"}),
        ("trainer.enable_progress_bar", False),
        ("trainer.callbacks.1.init_args.every", 9),
    ],
)
def test_what_cannot_change_a_trained_model_is_not_in_its_hash(key: str, value: Any) -> None:
    assert train_hash(changed(key, value), "store") == train_hash(CONFIG, "store")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.class_path", "mntp.systems.AudioMAR"),
        ("model.init_args.masking_mode", "zero"),
        ("model.init_args.a_new_default", 1),
        ("data.batch_size", 64),
        ("trainer.max_steps", 401),
        ("trainer.callbacks.0.init_args.decay", 0.9),
        ("trainer.callbacks.1", {"class_path": "callbacks.Compile", "init_args": {}}),
    ],
)
def test_what_can_change_a_trained_model_is_in_its_hash(key: str, value: Any) -> None:
    assert train_hash(changed(key, value), "store") != train_hash(CONFIG, "store")


def test_the_hash_is_of_content_not_of_order_and_of_the_data() -> None:
    reordered = dict(reversed(CONFIG.items()))
    assert train_hash(reordered, "store") == train_hash(CONFIG, "store") != train_hash(CONFIG, "other store")
    assert all(reason for reason in NOT_IN_TRAIN_HASH.values())
    assert hash_json(0.1) != hash_json(0.10000000000000002)


Planner = Callable[..., tuple[Plan, list[Job]]]


@pytest.fixture
def plan_rows(tmp_path: Path) -> Planner:
    matrix = load_world(tmp_path)

    def build(rows: str = "", resolve: Callable[..., Any] = resolve, store: Callable[..., Any] = prepare_data) -> Any:
        cells = expand(matrix, "micro", [0])
        return build_plan(matrix, cells, select_rows(matrix, rows), tmp_path / "runs", resolve, inputs(store))

    return build


def test_the_default_rows_are_seven_trainings_and_one_run_for_the_references(plan_rows: Planner) -> None:
    plan, jobs = plan_rows()
    assert [job.labels for job in jobs[:3]] == [
        ("3 ground_truth", "8 ground_truth"),
        ("3 reconstruction", "8 reconstruction"),
        ("3 untrained", "8 untrained"),
    ]
    assert len({job.run_dir for job in jobs[:3]}) == 1 and not any(job.trains for job in jobs[:3])
    assert [job.labels for job in jobs[3:]] == [
        ("3A",), ("3G", "8C"), ("3H", "8D"), ("3I",), ("3K",), ("8A",), ("8B",),
    ]  # fmt: skip
    assert len({job.run_dir for job in jobs}) == 8
    same = {cell.label: cell.same_as for cell in plan.cells if cell.same_as and not cell.reference}
    assert same == {
        "3J": "3G", "8C": "3G", "8D": "3H", "5 both": "3G", "6A": "3K", "6E": "3A", "6F": "3G", "heads:diffusion": "3G",
        "shuffled:in_order": "3G", "guidance:annealed": "3G", "schedule_b:C": "3G",
    }  # fmt: skip


def test_every_row_is_in_the_plan_whatever_is_asked_for(plan_rows: Planner) -> None:
    plan, jobs = plan_rows("3A")
    assert [job.labels for job in jobs] == [("3A",)]
    assert len({cell.label for cell in plan.cells}) == len(plan.cells)
    assert {cell.table for cell in plan.cells} == {
        "table3", "table8", "table4", "table5", "table6", "figure6a", "figure6b", "heads", "solvers",
        "parallel", "shuffled", "shuffled_decoding", "guidance", "schedule_b",
    }  # fmt: skip
    assert {cell.label for cell in plan.cells if cell.selected} == {"3A"}
    _, every = plan_rows("all")
    trained = {job.run_dir for job in every if job.trains}
    # A to I, H_mar and K of Table 3; A and B of Table 8; 3 heads of Table 4, but that of 2 layers which the bare base
    # config has; 2 prompts; 2 other heads; the one in random order; 5 other schedules
    assert len(trained) == 11 + 2 + 3 + 2 + 2 + 1 + 5


def test_tables_that_decode_train_nothing_of_their_own(plan_rows: Planner) -> None:
    for table, runs in {"table6": 3, "figure6a": 1, "figure6b": 1, "solvers": 1, "parallel": 1}.items():
        _, jobs = plan_rows(table)
        own = [job for job in jobs if any(not label.startswith("3") for label in job.labels)]
        models = [job for job in own if job.trains]
        assert len({job.run_dir for job in models}) == runs, table
        first = {job.run_dir: job for job in reversed(jobs)}
        assert all(first[job.run_dir].labels[0].startswith("3") for job in models), "what trains it comes first"


def test_a_row_that_would_train_is_refused_in_a_table_that_decodes(tmp_path: Path) -> None:
    text = (REPOSITORY / "ablations.yaml").read_text()
    matrix = load_world(tmp_path, text.replace("{model.init_args.decoding.num_steps: n}", "{trainer.max_steps: 9}"))
    with pytest.raises(ValueError, match=r"table6 row B would train a run of its own \(trainer.max_steps\)"):
        build_plan(matrix, expand(matrix, "micro", [0]), set(), tmp_path, resolve, inputs())


def test_a_row_that_starts_from_another_comes_behind_it_and_is_named_after_it(plan_rows: Planner) -> None:
    plan, jobs = plan_rows("3B")
    assert [job.labels for job in jobs] == [("3K",), ("3B",)]
    k, b = jobs
    assert b.needs == {"3K": k.run_dir} and k.needs == {}
    assert b.config["init"]["init_args"]["path"] == str(k.run_dir / "checkpoints" / "final.ckpt")
    cells = {cell.label: cell for cell in plan.cells}
    assert cells["3B"].train_hash != cells["3A"].train_hash
    weights = f"AudioMAR-{cells['3K'].train_hash}"
    assert cells["3B"].train_hash == train_hash(b.config, SHARED["store"], weights)
    moved = copy.deepcopy(b.config)
    moved["init"]["init_args"]["path"] = "elsewhere/final.ckpt"
    assert train_hash(moved, SHARED["store"], weights) == cells["3B"].train_hash, "where it lies doesn't matter"


def test_a_run_folder_says_system_hash_and_seed(plan_rows: Planner) -> None:
    plan, jobs = plan_rows("3K")
    cell = next(cell for cell in plan.cells if cell.label == "3K")
    assert jobs[0].run_dir.name == f"AudioMAR-{cell.train_hash}-s0" and len(cell.train_hash) == 12
    assert jobs[0].protocol == plan.protocols[cell.protocol_hash]
    assert jobs[0].protocol["scoring"]["store"] == SHARED["store"]
    assert jobs[0].protocol["generation"]["decoding"] == {"guidance": 7.0, "sampling": {"num_steps": 100}}


def test_only_the_models_samples_depend_on_decoding(plan_rows: Planner) -> None:
    def other(config: dict[str, Any]) -> dict[str, Any]:
        config = resolve(config)
        config["model"]["init_args"]["decoding"] = {"guidance": 1.0, "sampling": {"num_steps": 100}}
        return config

    before, after = ({cell.label: cell for cell in plan_rows(resolve=r)[0].cells} for r in (resolve, other))
    assert before["3G"].run_dir == after["3G"].run_dir
    assert before["3G"].protocol_hash != after["3G"].protocol_hash
    assert before["3 ground_truth"].protocol_hash == after["3 ground_truth"].protocol_hash


def test_a_misspelt_key_is_told_with_its_line_and_row(tmp_path: Path) -> None:
    text = (
        (REPOSITORY / "ablations.yaml")
        .read_text()
        .replace("init_args.masking_mode: gaussian", "init_args.hyde: gaussian")
    )
    number = next(n for n, line in enumerate(text.splitlines(), start=1) if "hyde" in line)
    matrix = load_world(tmp_path, text)
    with pytest.raises(ValueError, match=rf"ablations\.yaml:{number}: table3 row D: .*hyde.* not expected") as raised:
        build_plan(matrix, expand(matrix, "micro", [0]), set(), tmp_path, resolve, inputs())
    assert "\n" not in str(raised.value)


def test_shared_work_is_done_once_and_only_after_all_cells_are_checked(plan_rows: Planner) -> None:
    seen: list[Any] = []

    def noted(config: dict[str, Any]) -> str:
        seen.append(config["data"])
        return SHARED["store"]

    def refusing(config: dict[str, Any]) -> dict[str, Any]:
        if config["model"]["class_path"].endswith("AudioMAR"):
            raise ValueError("no such thing")
        return resolve(config)

    with pytest.raises(ValueError, match=r"ablations\.yaml:\d+: table3 row K: no such thing"):
        plan_rows(resolve=refusing, store=noted)
    assert seen == []
    plan_rows(store=noted)
    assert len(seen) == 1


def test_what_is_missing_is_named_and_a_plan_can_still_be_looked_at(tmp_path: Path) -> None:
    """Data, judge and weights: all at once where a plan is only looked at, else the first is an error."""
    text = (REPOSITORY / "ablations.yaml").read_text()
    matrix = load_world(tmp_path, text)
    for name in ("audio_ntp", "audio_mntp", "audio_mar"):
        with (tmp_path / "experiments/configs/micro" / f"{name}.yaml").open("a") as file:
            file.write("init: {class_path: mntp.initial_weights.ImageMAR, init_args: {path: weights/gone.pth}}\n")

    def absent(name: str) -> Callable[[dict[str, Any]], str]:
        def find(config: dict[str, Any]) -> str:
            raise ValueError(f"{name}: not there")

        return find

    cells, selected = expand(matrix, "micro", [0]), select_rows(matrix, "3A,3G")
    lenient = Inputs(absent("data/somewhere"), absent("weights/vggish.pth"), strict=False)
    plan, jobs = build_plan(matrix, cells, selected, tmp_path, resolve, lenient)
    assert [job.labels for job in jobs] == [("3A",), ("3G",)] and len(plan.cells) == len(cells)
    store, judge, weights = sorted(lenient.missing, key=lambda line: ("data" not in line, "vggish" not in line))
    assert (store, judge) == ("data/somewhere: not there", "weights/vggish.pth: not there")
    assert "weights/gone.pth" in weights and "set `init: null`" in weights
    with pytest.raises(ValueError, match=r"starts from the weights weights/gone\.pth"):
        build_plan(matrix, cells, selected, tmp_path, resolve, Inputs(prepare_data, absent("a judge")))


def test_rows_with_other_data_or_judges_are_never_one_table(plan_rows: Planner) -> None:
    def elsewhere(config: dict[str, Any]) -> dict[str, Any]:
        config = resolve(config)
        if config["model"]["class_path"].endswith("AudioMAR"):
            config["data"]["store"] = "another"
        return config

    def prepared(config: dict[str, Any]) -> str:
        return str(config["data"]["store"])

    message = r"table3: 3 ground_truth and 3K can't stand in one table, their scoring\.store is .* and another"
    with pytest.raises(ValueError, match=message):
        plan_rows(resolve=elsewhere, store=prepared)


def test_rows_that_are_decoded_in_different_ways_are_never_one_table(plan_rows: Planner) -> None:
    def weaker(config: dict[str, Any]) -> dict[str, Any]:
        config = resolve(config)
        if config["model"]["class_path"].endswith("AudioMAR"):
            config["model"]["init_args"]["decoding"] |= {"guidance": 3.0, "order": "random"}
        return config

    message = r"3 untrained and 3K can't stand in one table, their decoding\.guidance is 7\.0 and 3\.0"
    with pytest.raises(ValueError, match=message):
        plan_rows(resolve=weaker)


def test_a_plan_comes_back_as_it_was_written(plan_rows: Planner, tmp_path: Path) -> None:
    plan, _ = plan_rows()
    write_plan(plan, tmp_path / "results")
    assert read_plan(tmp_path / "results") == plan
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["plan.json"]
    write_plan(replace(plan, matrix="other"), tmp_path / "results")
    assert read_plan(tmp_path / "results").matrix == "other"


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": 1}', '{"format": 3, "cells": [{}]}'])
def test_a_file_that_is_no_plan(tmp_path: Path, content: str) -> None:
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(ValueError, match=r"plan\.json: not a plan of format 3"):
        read_plan(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing is planned here"):
        read_plan(tmp_path / "absent")


def test_scales_do_not_share_a_results_folder() -> None:
    out = Path("results")
    assert results_folder(out, "micro") == out and results_folder(out, "smoke") == out / "smoke"
