"""The repository's own matrix over its own base configs, resolved by the real parser: rows differ as they should."""

from pathlib import Path
from typing import Any

import lightning.pytorch.callbacks
import pytest

import callbacks
from experiments.ablate.expansion import Cell, expand
from experiments.ablate.identity import NOT_IN_TRAIN_HASH, ONLOOKERS
from experiments.ablate.matrix import load_matrix
from experiments.ablate.overlay import look_up
from experiments.ablate.plan import build_plan
from experiments.ablate.planned import Plan
from experiments.cli import resolve
from tests.experiments.ablate.support import REPOSITORY, prepare

Rows = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def micro() -> tuple[list[Cell], Rows, Plan]:
    """Cells of the micro scale, the resolved config of each, and the plan."""
    matrix = load_matrix(REPOSITORY / "ablations.yaml")
    cells = expand(matrix, "micro", [0])
    every = {(cell.table, cell.row.id) for cell in cells}
    plan, jobs = build_plan(matrix, cells, every, Path("runs"), resolve, prepare)
    configs = {(str(job.run_dir), job.protocol_hash): job.config for job in jobs}
    rows = {(c.table, c.row): configs[c.run_dir, c.protocol_hash] for c in plan.cells}
    return cells, rows, plan


def changed(first: Any, second: Any, key: str = "") -> set[str]:
    """Dotted keys in which two resolved configs differ; a class with other arguments is one difference."""
    if not (isinstance(first, dict) and isinstance(second, dict)) or first.keys() != second.keys():
        return set() if first == second else {key}
    if "class_path" in first and key != "model":
        return set() if first == second else {key}
    return {d for name in first for d in changed(first[name], second[name], f"{key}.{name}".lstrip("."))}


HIDE, RATIO = "model.init_args.hide", "model.init_args.ratio"
DIFFERS = {  # row: (the row it is compared with, exactly these keys)
    ("table3", "B"): (("table3", "A"), {"init"}),
    ("table3", "C"): (("table3", "A"), {HIDE, RATIO}),
    ("table3", "D"): (("table3", "A"), {HIDE, RATIO}),
    ("table3", "E"): (("table3", "A"), {HIDE, RATIO}),
    ("table3", "F"): (("table3", "E"), {HIDE}),
    ("table3", "H"): (("table3", "G"), {RATIO}),
    ("table3", "H_mar"): (("table3", "G"), {RATIO}),
    ("table3", "I"): (("table3", "G"), {"model.init_args.target_position_embedding"}),
    ("table3", "J"): (("table3", "G"), set[str]()),
    ("table8", "A"): (("table8", "C"), {RATIO}),
    ("table8", "B"): (("table8", "C"), {RATIO}),
    ("table8", "C"): (("table3", "G"), set[str]()),
    ("table8", "D"): (("table3", "H"), set[str]()),
    ("table3", "untrained"): (("table3", "G"), {"trainer.max_steps"}),
    ("table4", "1"): (("table3", "G"), {"model.init_args.head"}),
    ("table4", "6"): (("table4", "3"), {"model.init_args.head"}),
    ("table5", "both"): (("table3", "G"), set[str]()),
    ("table5", "pooled"): (("table3", "G"), {"model.init_args.streams"}),
    ("table5", "words"): (("table3", "G"), {"model.init_args.streams"}),
    ("table6", "A"): (("table3", "K"), set[str]()),
    ("table6", "B"): (("table6", "A"), {"model.init_args.decoding.num_steps"}),
    ("table6", "C"): (("table6", "A"), {"model.init_args.decoding.order"}),
    ("table6", "D"): (("table6", "C"), {"model.init_args.decoding.num_steps"}),
    ("table6", "E"): (("table3", "A"), set[str]()),
    ("table6", "F"): (("table3", "G"), set[str]()),
    ("figure6a", "7"): (("figure6a", "1"), {"model.init_args.decoding.guidance.scale"}),
    ("figure6b", "0.8"): (("figure6b", "1.0"), {"model.init_args.decoding.temperature"}),
    ("heads", "flow_matching"): (("table3", "G"), {"model.init_args.head"}),
    ("heads", "mixture"): (("table3", "G"), {"model.init_args.head"}),
    ("solvers", "ddim"): (("solvers", "dpmpp_2m"), {"model.init_args.decoding.solver"}),
}


@pytest.mark.parametrize("row", DIFFERS)
def test_a_row_differs_from_its_neighbour_by_exactly_what_the_paper_says(
    micro: tuple[list[Cell], Rows, Plan], row: tuple[str, str]
) -> None:
    other, keys = DIFFERS[row]
    assert changed(micro[1][row], micro[1][other]) == keys


def test_systems_are_compared_on_equal_terms(micro: tuple[list[Cell], Rows, Plan]) -> None:
    rows = micro[1]
    g = rows["table3", "G"]
    for row in ("A", "K"):
        config = rows["table3", row]
        assert config["data"] == g["data"] and config["trainer"] == g["trainer"]
        for key in ("head", "optimisation", "streams", "prompt_drop", "token_dim", "num_tokens", "seed"):
            assert config["model"]["init_args"][key] == g["model"]["init_args"][key]


def test_every_row_names_the_system_that_the_table_shows(micro: tuple[list[Cell], Rows, Plan]) -> None:
    cells, rows, plan = micro
    for cell in cells:
        name = rows[cell.table, cell.row.id]["model"]["class_path"].rpartition(".")[2]
        assert name == cell.settings["system"]
    assert {cell.system for cell in plan.cells} == {"", "AudioNTP", "AudioMNTP", "AudioMAR"}


def test_the_base_configs_are_rows_of_the_table(micro: tuple[list[Cell], Rows, Plan]) -> None:
    differences = {(cell.table, cell.row): cell.differences for cell in micro[2].cells}
    assert differences["table3", "A"] == differences["table3", "G"] == differences["table3", "K"] == {}


def test_keys_left_out_of_the_hash_exist(micro: tuple[list[Cell], Rows, Plan]) -> None:
    config = micro[1]["table3", "G"]
    for key in NOT_IN_TRAIN_HASH:
        parent, _, last = key.rpartition(".")
        assert last in look_up(config, parent), f"{key} is no longer a key: a rename has put it into the hash"
    for name in ONLOOKERS:
        assert hasattr(callbacks, name) or hasattr(lightning.pytorch.callbacks, name)


def test_the_smoke_scale_resolves_too() -> None:
    matrix = load_matrix(REPOSITORY / "ablations.yaml")
    for cell in expand(matrix, "smoke", [0]):
        if cell.row.id in ("A", "G", "K", "untrained") and cell.table == "table3":
            assert resolve(cell.config)["trainer"]["max_steps"] == (0 if cell.row.reference else 3)
