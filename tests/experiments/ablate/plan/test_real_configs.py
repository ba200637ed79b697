"""The repository's own matrix over its own base configs, resolved by the real parser: rows differ as they should."""

from pathlib import Path
from typing import Any

import lightning.pytorch.callbacks
import pytest

import callbacks
from experiments.ablate.matrix.expand import Cell, expand
from experiments.ablate.matrix.load import load_matrix
from experiments.ablate.plan.build import build_plan
from experiments.ablate.plan.identity import NOT_IN_TRAIN_HASH, ONLOOKERS
from experiments.ablate.plan.plan_file import Plan
from experiments.config.nodes import look_up
from experiments.config.resolve import load_config, resolve
from tests.experiments.ablate.support import REPOSITORY, inputs

Rows = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def micro() -> tuple[list[Cell], Rows, Plan]:
    """Cells of the micro scale, the resolved config of each, and the plan."""
    matrix = load_matrix(REPOSITORY / "ablations.yaml")
    cells = expand(matrix, "micro", [0])
    every = {(cell.table, cell.row.id) for cell in cells}
    plan, jobs = build_plan(matrix, cells, every, Path("runs"), resolve, inputs())
    configs = {(str(job.run_dir), job.protocol_hash): job.config for job in jobs}
    rows = {(c.table, c.row): configs[c.run_dir, c.protocol_hash] for c in plan.cells}
    return cells, rows, plan


def changed(first: Any, second: Any, key: str = "") -> set[str]:
    """Dotted keys in which two resolved configs differ, down to the leaves; another class is one difference."""
    both = isinstance(first, dict) and isinstance(second, dict)
    if not both or first.get("class_path") != second.get("class_path"):
        return set() if first == second else {key}
    names = first.keys() | second.keys()
    return {d for name in names for d in changed(first.get(name), second.get(name), f"{key}.{name}".lstrip("."))}


HIDE, RATIO = "model.init_args.masking_mode", "model.init_args.mask_ratio"
TARGET, DEPTH = "model.init_args.target_position_embedding", "model.init_args.head.init_args.depth"
LOW_HIGH = {f"{RATIO}.init_args.{end}" for end in ("loc", "low", "high")}
STEPS, ORDER = (f"model.init_args.decoding.{key}" for key in ("num_steps", "order"))
SCALE, TEMPERATURE = "model.init_args.decoding.guidance.scale", "model.init_args.decoding.sampling.temperature"
GUIDANCE_SCHEDULE, CONVENTION = (f"model.init_args.decoding.guidance.{key}" for key in ("schedule", "convention"))
COMPONENTS = f"{RATIO}.init_args.components"
SOLVER = "model.init_args.decoding.sampling.solver"
DIFFUSION_STEPS = "model.init_args.decoding.sampling.num_steps"
OTHER_SOLVERS = ("ddim", "dpmpp_2m", "sde_dpmpp_2m")
GUIDED = "model.init_args.decoding.sampling.guided_steps"
AT_ONCE = "model.init_args.decoding.tokens_per_call"
GROWING = "model.init_args.decoding.ramp"
RANDOM = "model.init_args.decoding.random_order"
DIFFERS: dict[tuple[str, str], tuple[tuple[str, str], set[str]]] = {  # row: (compared with, exactly these keys)
    ("table3", "B"): (("table3", "A"), {"init"}),
    ("table3", "C"): (("table3", "A"), {HIDE, RATIO}),
    ("table3", "D"): (("table3", "C"), {HIDE, RATIO}),
    ("table3", "E"): (("table3", "F"), {HIDE}),
    ("table3", "F"): (("table3", "C"), {RATIO}),
    ("table3", "G"): (("table3", "I"), {TARGET}),
    ("table3", "H"): (("table3", "G"), {RATIO}),
    ("table3", "H_mar"): (("table3", "H"), LOW_HIGH),
    ("table3", "I"): (("table3", "J"), {TARGET}),
    ("table3", "J"): (("table3", "G"), set()),
    ("table8", "A"): (("table8", "C"), {RATIO}),
    ("table8", "B"): (("table8", "C"), {RATIO}),
    ("table8", "C"): (("table3", "G"), set()),
    ("table8", "D"): (("table3", "H"), set()),
    ("table4", "1"): (("table3", "G"), {DEPTH}),
    ("table4", "3"): (("table4", "1"), {DEPTH}),
    ("table4", "6"): (("table4", "3"), {DEPTH}),
    ("table5", "both"): (("table3", "G"), set()),
    ("table5", "pooled"): (("table5", "both"), {"model.init_args.streams.words"}),
    ("table5", "words"): (("table5", "both"), {"model.init_args.streams.pooled"}),
    ("table6", "A"): (("table3", "K"), set()),
    ("table6", "B"): (("table6", "A"), {STEPS}),
    ("table6", "C"): (("table6", "A"), {ORDER}),
    ("table6", "D"): (("table6", "C"), {STEPS}),
    ("table6", "E"): (("table3", "A"), set()),
    ("table6", "F"): (("table3", "G"), set()),
    **{("figure6a", w): (("table3", "G"), {SCALE}) for w in ("1", "5", "7", "9")},
    ("figure6a", "3"): (("table3", "G"), set()),  # the base config's own
    **{("figure6b", t): (("table3", "G"), {TEMPERATURE}) for t in ("0.8", "0.9", "1.1")},
    ("figure6b", "1.0"): (("table3", "G"), set()),
    ("heads", "diffusion"): (("table3", "G"), set()),
    ("heads", "flow_matching"): (("table3", "G"), {"model.init_args.head", SOLVER}),  # each its own first solver
    ("heads", "mixture"): (("table3", "G"), {"model.init_args.head", SOLVER, DIFFUSION_STEPS, GUIDED}),  # it has none
    ("solvers", "ancestral_100"): (("table3", "G"), {DIFFUSION_STEPS}),
    ("solvers", "ancestral_25"): (("table3", "G"), set()),  # the default solver by its name, and micro's own steps
    **{("solvers", f"ancestral_{n}"): (("solvers", "ancestral_100"), {DIFFUSION_STEPS}) for n in (12, 50)},
    **{("solvers", f"guided_{part}"): (("solvers", "ancestral_100"), {GUIDED}) for part in ("early", "late")},
    ("solvers", "ddim_100"): (("solvers", "ancestral_100"), {SOLVER}),
    **{("solvers", f"{name}_25"): (("solvers", "ancestral_25"), {SOLVER}) for name in OTHER_SOLVERS},
    **{
        ("solvers", f"{name}_{steps}"): (("solvers", f"{name}_25"), {DIFFUSION_STEPS})
        for name in OTHER_SOLVERS
        for steps in (8, 12, 50)
    },
    ("parallel", "1"): (("table3", "G"), set()),
    **{("parallel", k): (("table3", "G"), {AT_ONCE}) for k in ("2", "4", "8")},
    **{("parallel", f"growing_{k}"): (("parallel", k), {GROWING}) for k in ("4", "8")},
    ("shuffled", "in_order"): (("table3", "G"), set()),
    ("shuffled", "shuffled"): (("table3", "G"), {"model.init_args.shuffled"}),
    ("shuffled_decoding", "causal"): (("shuffled", "shuffled"), set()),
    ("shuffled_decoding", "causal_4"): (("shuffled", "shuffled"), {AT_ONCE}),
    ("shuffled_decoding", "random"): (("shuffled", "shuffled"), {RANDOM}),
    ("shuffled_decoding", "random_4"): (("shuffled_decoding", "random"), {AT_ONCE}),
    ("shuffled_decoding", "random_growing_8"): (("shuffled_decoding", "random"), {AT_ONCE, GROWING}),
    ("guidance", "annealed"): (("table3", "G"), set()),
    **{("guidance", name): (("table3", "G"), {GUIDANCE_SCHEDULE}) for name in ("constant", "linear")},
    ("guidance", "convention_paper"): (("table3", "G"), {CONVENTION}),
    ("schedule_b", "C"): (("table3", "G"), set()),
    **{("schedule_b", name): (("table3", "G"), {COMPONENTS}) for name in ("C_loc_0", "C_wide", "C_narrow", "C_whole")},
    ("schedule_b", "B_loc_0"): (("table8", "B"), {f"{RATIO}.init_args.loc"}),
    **{(table, "untrained"): (("table3", "G"), {"trainer.max_steps"}) for table in ("table3", "table8")},
}
STARTS = {("table3", "A"), ("table3", "K")}  # of another system than their neighbours


def test_every_row_is_compared(micro: tuple[list[Cell], Rows, Plan]) -> None:
    rows = {(cell.table, cell.row.id) for cell in micro[0] if not cell.row.reference}
    assert {row for row in DIFFERS if row[1] != "untrained"} | STARTS == rows


@pytest.mark.parametrize("row", DIFFERS)
def test_a_row_differs_from_its_neighbour_by_exactly_what_the_paper_says(
    micro: tuple[list[Cell], Rows, Plan], row: tuple[str, str]
) -> None:
    other, keys = DIFFERS[row]
    assert changed(micro[1][row], micro[1][other]) == keys


def test_neighbours_of_different_systems_differ_by_system_backbone_and_masking(
    micro: tuple[list[Cell], Rows, Plan],
) -> None:
    """G from E (and from A), K from H_mar: by class, and by the arguments that only one of the two classes has."""
    rows = {row: config["model"] for (table, row), config in micro[1].items() if table == "table3"}
    parallel = {f"decoding.{key}" for key in ("tokens_per_call", "ramp", "random_order")}
    own_of_mntp = {"target_position_embedding", "shuffled", *parallel}
    for first, second, keys in (
        ("G", "E", {"masking_mode", *own_of_mntp}),
        ("G", "A", {"masking_mode", "mask_ratio", *own_of_mntp}),
        ("K", "H_mar", {"backbone", "decoding.num_steps", "decoding.order", *own_of_mntp}),
    ):
        arguments = [rows[row]["init_args"] for row in (first, second)]
        assert rows[first]["class_path"] != rows[second]["class_path"]
        assert changed(*arguments) == keys
    backbones = [rows[row]["init_args"]["backbone"]["init_args"] for row in ("K", "G")]
    assert changed(*backbones) == {"bridge"}


def test_at_the_papers_scale_row_j_leaves_out_the_image_weights_and_b_takes_ks(tmp_path: Path) -> None:
    """Over the base configs, which start from MAR's checkpoint: the same rows, and J is no longer G."""
    text = (REPOSITORY / "ablations.yaml").read_text()
    path = tmp_path / "ablations.yaml"
    path.write_text(text.replace("configs: experiments/configs/micro", "configs: experiments/configs/base", 1))
    (tmp_path / "experiments").symlink_to(REPOSITORY / "experiments")
    cells = expand(load_matrix(path), "micro", [0])
    configs = {cell.row.id: resolve(cell.config) for cell in cells if cell.table == "table3" and cell.row.id in "ABGJK"}
    image = {"class_path": "mntp.initial_weights.ImageMAR", "init_args": {"path": "weights/mar_base.pth"}}
    for row in "AGK":
        assert {**configs[row]["init"], "init_args": {"path": configs[row]["init"]["init_args"]["path"]}} == image
    assert changed(configs["J"], configs["G"]) == {"init"}
    assert configs["J"]["init"] is None
    (b,) = [cell for cell in cells if (cell.table, cell.row.id) == ("table3", "B")]
    assert b.row.init_from == ("table3", "K")


@pytest.mark.parametrize("system", ["audio_ntp", "audio_mntp", "audio_mar"])
@pytest.mark.parametrize("scale", ["base", "large", "large_463m"])
def test_the_papers_scales_are_the_configs_that_train_a_single_system(scale: str, system: str) -> None:
    configs = REPOSITORY / "experiments" / "configs"
    large = {"base": [], "large": ["large.yaml"], "large_463m": ["large.yaml", "large_463m.yaml"]}[scale]
    layers = [configs / "base" / f"{system}.yaml", *(configs / name for name in large)]
    expected = resolve(*(load_config(path) for path in layers))
    row = {"audio_ntp": "A", "audio_mntp": "G", "audio_mar": "K"}[system]
    cells = expand(load_matrix(REPOSITORY / "ablations.yaml"), scale, [0])
    (cell,) = [cell for cell in cells if (cell.table, cell.row.id) == ("table3", row)]
    assert changed(resolve(cell.config), expected) <= {"init.init_args.path"}  # found from the matrix's folder
    assert Path(resolve(cell.config)["init"]["init_args"]["path"]).name == f"mar_{scale.removesuffix('_463m')}.pth"
    assert cell.evaluation.judge == "audioldm"


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


@pytest.mark.slow
def test_every_combination_of_the_axes_resolves_and_is_another_model() -> None:
    matrix = load_matrix(REPOSITORY / "ablations.yaml")
    every = expand(matrix, "smoke", [0], {"factorial"})
    cells = [cell for cell in every if cell.table == "factorial" and not cell.row.reference]
    models = [resolve(cell.config)["model"] for cell in cells]
    assert len(models) == 43
    assert all(models.count(model) == 1 for model in models)
    for cell, model in zip(cells, models, strict=True):
        assert model["class_path"].endswith(f".{cell.settings['system']}")
        assert (model["init_args"]["mask_ratio"] is None) == (cell.settings["masking"] == "none")
        expected = {"on": True, "off": None if cell.settings["system"] != "AudioMNTP" else False}
        target = model["init_args"].get("target_position_embedding")
        assert target is expected[cell.settings["target_position_embedding"]]
