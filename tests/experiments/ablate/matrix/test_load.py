"""The matrix file: rows mean what the paper says, and a mistake is told with its file, line and key."""

from pathlib import Path
from typing import Any

import pytest

from experiments.ablate.matrix.expand import Cell, expand
from experiments.ablate.matrix.load import load_matrix
from experiments.ablate.matrix.schema import Matrix
from experiments.ablate.matrix.select import select_rows
from tests.experiments.ablate.support import ARGUMENTS, REPOSITORY, load_world, write_world


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    return load_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def cells(matrix: Matrix) -> dict[tuple[str, str], Cell]:
    return {(cell.table, cell.row.id): cell for cell in expand(matrix, "micro", [0])}


def law(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"mntp.masking.{name}", "init_args": arguments}


A = law("ClippedNormal", loc=0.75, scale=0.10, low=0.0, high=1.0)
B = law("TruncatedNormal", loc=1.0, scale=0.5, low=0.0, high=1.0)
C = law("Mixture", components=[A, B], weights=[0.5, 0.5])
D = law("TruncatedNormal", loc=0.85, scale=0.25, low=0.55, high=0.85)
D_MAR = law("TruncatedNormal", loc=1.0, scale=0.25, low=0.7, high=1.0)

# specs: section 6's table of rows, section 7's table of schedules
PAPER_SAYS = {
    ("table3", "A"): ("AudioNTP", {"masking_mode": "none"}),
    ("table3", "B"): ("AudioNTP", {"masking_mode": "none"}),
    ("table3", "C"): ("AudioNTP", {"masking_mode": "zero", "mask_ratio": law("Fixed", value=0.7)}),
    ("table3", "D"): ("AudioNTP", {"masking_mode": "gaussian", "mask_ratio": law("Uniform", low=0.0, high=1.0)}),
    ("table3", "E"): ("AudioNTP", {"masking_mode": "drop", "mask_ratio": C}),
    ("table3", "F"): ("AudioNTP", {"masking_mode": "zero", "mask_ratio": C}),
    ("table3", "G"): ("AudioMNTP", {"target_position_embedding": True, "mask_ratio": C}),
    ("table3", "H"): ("AudioMNTP", {"target_position_embedding": True, "mask_ratio": D}),
    ("table3", "H_mar"): ("AudioMNTP", {"target_position_embedding": True, "mask_ratio": D_MAR}),
    ("table3", "I"): ("AudioMNTP", {"target_position_embedding": False, "mask_ratio": C}),
    ("table3", "J"): ("AudioMNTP", {"target_position_embedding": True, "mask_ratio": C}),
    ("table3", "K"): ("AudioMAR", {"mask_ratio": D_MAR}),
    ("table8", "A"): ("AudioMNTP", {"target_position_embedding": True, "mask_ratio": A}),
    ("table8", "B"): ("AudioMNTP", {"target_position_embedding": True, "mask_ratio": B}),
    ("table8", "C"): ("AudioMNTP", {"target_position_embedding": True, "mask_ratio": C}),
    ("table8", "D"): ("AudioMNTP", {"target_position_embedding": True, "mask_ratio": D}),
}


@pytest.mark.parametrize(("table", "row"), PAPER_SAYS)
def test_a_row_differs_from_its_base_config_by_what_the_paper_says(
    cells: dict[tuple[str, str], Cell], table: str, row: str
) -> None:
    system, arguments = PAPER_SAYS[table, row]
    cell = cells[table, row]
    assert cell.config["model"] == {"class_path": f"mntp.systems.{system}", "init_args": {**ARGUMENTS, **arguments}}
    assert cell.config["trainer"] == {"max_steps": 400} and cell.config["data"]["seed"] == 0
    assert cell.base["model"]["init_args"] == ARGUMENTS and cell.base["data"] == cell.config["data"]


def test_every_row_of_tables_3_and_8_is_checked_above(cells: dict[tuple[str, str], Cell]) -> None:
    declared = {key for key, cell in cells.items() if key[0] in ("table3", "table8") and not cell.row.reference}
    assert declared == set(PAPER_SAYS)


def test_row_b_starts_from_row_ks_run_and_row_j_from_nothing(cells: dict[tuple[str, str], Cell]) -> None:
    starts = {key: cell.row.init_from for key, cell in cells.items() if cell.row.init_from}
    assert starts == {("table3", "B"): ("table3", "K")}
    assert cells["table3", "J"].config["init"] is None


def test_the_product_of_the_axes_is_every_combination_that_makes_sense(matrix: Matrix) -> None:
    product = matrix.tables["factorial"]
    systems = [row.axes["system"] for row in product.rows.values()]
    # AudioNTP: plain, and 3 masking modes x 7 schedules; AudioMNTP: position on or off x 7 schedules; AudioMAR: 7
    assert {name: systems.count(name) for name in set(systems)} == {"AudioNTP": 22, "AudioMNTP": 14, "AudioMAR": 7}
    labels = 3 * 5 * 2 * 8  # systems, maskings and `mask token`, on and off, laws and `none`
    assert sum(product.excluded.values()) + len(product.rows) == labels
    assert all(len(reason) > 10 for reason in product.excluded)
    assert not any(cell.table == "factorial" for cell in expand(matrix, "micro", [0]))
    asked = expand(matrix, "micro", [0], {"factorial"})
    assert sum(cell.table == "factorial" and not cell.row.reference for cell in asked) == 43
    assert len(select_rows(matrix, "factorial")) == 43 + 3


PRODUCT = "    product: [system, masking, target_position_embedding, schedule]\n"
EXCLUDE = """\
    exclude:
      - {axes: {system: AudioMNTP, schedule: D_mar}, reason: the paper says it works poorly}
      - {axes: {masking: zero}, reason: hidden tokens are dropped here}
"""
INCLUDE = """\
    include:
      wide:
        axes: {system: AudioMNTP, target_position_embedding: on, schedule: D_mar}
        set: {model.init_args.head.init_args.width: 16}
        description: left out above, and wanted in this one form
        paper: {table: 3, row: H}
"""


def matrix_text(old: str = "", new: str = "") -> str:
    """The repository's matrix, its product with exclusions and an extra row, one part of these replaced."""
    text = (REPOSITORY / "ablations.yaml").read_text()
    assert text.count(PRODUCT) == 1 and old in EXCLUDE + INCLUDE, "the test is stale"
    return text.replace(
        PRODUCT, PRODUCT + (EXCLUDE + INCLUDE).replace(old, new, 1) if old else PRODUCT + EXCLUDE + INCLUDE
    )


def test_a_product_leaves_out_what_it_excludes_and_has_what_it_includes(tmp_path: Path, matrix: Matrix) -> None:
    changed = load_world(tmp_path, matrix_text())
    before, after = matrix.tables["factorial"], changed.tables["factorial"]
    # AudioMNTP with D_mar, position on or off; AudioNTP with zeros under 7 laws
    gone = before.rows.keys() - after.rows.keys()
    assert len(gone) == 2 + 7 and after.rows.keys() - before.rows.keys() == {"wide"}
    assert after.excluded["the paper says it works poorly"] == 2
    assert after.excluded["hidden tokens are dropped here"] == 7
    assert sum(after.excluded.values()) - sum(before.excluded.values()) == len(gone)
    cells = {cell.row.id: cell for cell in expand(changed, "micro", [0], {"factorial"}) if cell.table == "factorial"}
    wide = cells["wide"]
    assert wide.config["model"]["init_args"]["mask_ratio"] == D_MAR and wide.row.published["fd"] == "15.55"
    assert wide.config["model"]["init_args"]["head"]["init_args"]["width"] == 16
    assert select_rows(changed, "factorial:wide") == {("factorial", "wide")}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("masking: zero", "masking: zeros", "'zeros' is not known here"),
        ("schedule: D_mar}, reason", "schedul: D_mar}, reason", "did you mean 'schedule'"),
        ("masking: zero", "masking: none, schedule: A", "this leaves nothing out"),
        ("{axes: {masking: zero}", "{axes: {}", "no value is named"),
        (", reason: hidden tokens are dropped here", "", "the key 'reason' is missing"),
        ("      wide:", "      AudioNTP-none:", "a combination of the product has this name"),
        ("head.init_args.width: 16", "seed: 3", "the seed is not the matrix's"),
        ("    include:", "    default_rows: [wide]\n    include:", "'default_rows' is not known here"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_product_is_told_with_its_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = write_world(tmp_path, matrix_text(old, new))
    with pytest.raises(ValueError) as raised:
        load_matrix(path)
    message = str(raised.value)
    assert message.startswith(f"{path}:") and says in message and "\n" not in message
    line = int(message.removeprefix(f"{path}:").split(":")[0])
    changed = matrix_text(old, new).splitlines()
    assert changed[line - 1] not in matrix_text().splitlines()


def test_published_values_are_the_papers_as_printed(cells: dict[tuple[str, str], Cell]) -> None:
    published = {"fd": "14.85", "fad": "1.70", "kl": "1.17", "is": "9.62", "clap": "0.335"}
    assert cells["table3", "J"].row.published == published
    assert cells["table8", "B"].row.published["fd"] == "15.96"
    assert cells["table3", "H_mar"].row.published == {}


def test_implied_settings_are_shown(cells: dict[tuple[str, str], Cell]) -> None:
    assert cells["table3", "G"].settings == {
        "system": "AudioMNTP", "masking": "drop", "target_position_embedding": "on", "schedule": "C",
    }  # fmt: skip
    assert cells["table3", "A"].settings["schedule"] == "none"
    assert cells["table3", "K"].settings["target_position_embedding"] == "off"


def test_reference_rows_are_row_g_without_training(cells: dict[tuple[str, str], Cell]) -> None:
    for table in ("table3", "table8"):
        sources = {row: cells[table, row].row.source for row in ("ground_truth", "reconstruction", "untrained")}
        assert sources == {"ground_truth": "ground_truth", "reconstruction": "reconstruction", "untrained": "model"}
        untrained = cells[table, "untrained"]
        assert untrained.config["trainer"] == {"max_steps": 0}
        assert untrained.config["model"] == cells["table3", "G"].config["model"]


def test_smoke_changes_every_cell_and_a_row_still_wins_over_its_scale(matrix: Matrix) -> None:
    for cell in expand(matrix, "smoke", [3]):
        assert cell.config["trainer"]["max_steps"] == (0 if cell.row.reference else 3)
        assert cell.config["model"]["init_args"]["seed"] == cell.config["data"]["seed"] == 3


def test_cells_share_nothing(matrix: Matrix) -> None:
    first, second = (
        c for c in expand(matrix, "micro", [0]) if (c.table, c.row.id) in [("table3", "G"), ("table8", "C")]
    )  # the same by content
    assert first.config == second.config
    first.config["model"]["init_args"]["mask_ratio"]["init_args"]["components"][0]["init_args"]["loc"] = 9
    assert second.config["model"]["init_args"]["mask_ratio"] == C


def test_rows_to_run(matrix: Matrix) -> None:
    default = select_rows(matrix, "")
    assert {row for table, row in default if table == "table3"} == {
        "A", "G", "H", "I", "K", "ground_truth", "reconstruction", "untrained",
    }  # fmt: skip
    assert {row for table, row in default if table == "table8"} >= {"A", "B", "C", "D"}
    assert select_rows(matrix, "3A, 3H_mar,8B") == {("table3", "A"), ("table3", "H_mar"), ("table8", "B")}
    assert select_rows(matrix, "untrained") == {("table3", "untrained"), ("table8", "untrained")}
    assert select_rows(matrix, "3B") == {("table3", "B"), ("table3", "K")}, "row B needs row K's run"
    with pytest.raises(ValueError, match=r"row 'untraned' is not known here; .* did you mean 'untrained'"):
        select_rows(matrix, "3A,untraned")


MISTAKES = {  # what is changed in the repository's matrix: (old, new, what the message says)
    "unknown axis": ("axes: {system: AudioNTP, masking: zero,", "axes: {system: AudioNTP, maskin: zero,",
                     "'maskin' is not known here; known: system, masking, "),
    "unknown value": ("masking: gaussian, schedule: uniform", "masking: gausian, schedule: uniform",
                      "known: none, zero, gaussian, drop; did you mean 'gaussian'?"),
    "unknown default row": ("default_rows: [A, G, H, I, K]", "default_rows: [A, Q]", "'Q' is not known"),
    "unknown key of a row": ("init_from:", "init_form:", "'init_form' is not known here"),
    "a start that is no row": ("init_from: {table: table3, row: K}", "init_from: {table: table3, row: Q}",
                               "'Q' is not known here"),
    "a row that needs itself": ("init_from: {table: table3, row: K}", "init_from: {table: table3, row: B}",
                                "needs its own trained run to start from"),
    "two starts": ("init_from: {table: table3, row: K}",
                   "init_from: {table: table3, row: K}\n        set: {init: null}", "and sets `init` as well"),
    "like a row below": ("like: {table: table3, row: G}\n        set: {init",
                         "like: {table: table3, row: K}\n        set: {init", "a row is like one above it"),
    "a row that the paper lacks": ("paper: {table: 3, row: K}", "paper: {table: 3, row: L}", "'L' is not known"),
    "a table that the paper lacks": ("paper: {table: 3, row: K}", "paper: {table: 33, row: K}",
                                     "published values: 'table33' is not known here"),
    "an axis left out": ("axes: {system: AudioMAR, schedule: D_mar}", "axes: {system: AudioMAR}",
                         "no value for schedule"),
    "a value said twice": ("axes: {system: AudioMAR, schedule: D_mar}",
                           "axes: {system: AudioMAR, masking: zero, schedule: D_mar}",
                           "system: AudioMAR already means masking: mask token"),
    "two values on one node": ("set: {model.init_args.masking_mode: gaussian}",
                               "set: {model.init_args.mask_ratio.low: 0.1}",
                               "both set model.init_args.mask_ratio"),
    "half a class": ("{model.init_args.masking_mode: zero}", "{model.init_args.head.class_path: Other}",
                     "give the whole node"),
    "a seed in an overlay": ("set: {model.init_args.masking_mode: zero}", "set: {data.seed: 3}",
                             "a run is asked for with its"),
    "another format": ("format: 1", "format: 2", "this program reads format 1"),
    "a row twice": ("      C:\n        axes: {system: AudioNTP", "      A:\n        axes: {system: AudioNTP",
                    "this key is given twice"),
    "not YAML": ("seed: 0, batch_size: 16}", "seed: 0, batch_size: 16", "not valid YAML"),
    "no number": ("num_clips: 16", "num_clips: many", "expected a whole number from 2 up, got 'many'"),
    "no clips": ("num_clips: 16", "num_clips: 0", "expected a whole number from 2 up, got 0"),
    "unknown source": ("source: ground_truth", "source: groundtruth", "did you mean 'ground_truth'?"),
    "unknown base scale": ("base: micro", "base: mikro", "did you mean 'micro'?"),
    "no description": ("        description: A and B at equal weights\n", "", "the key 'description' is missing"),
}  # fmt: skip

# told at the row, or where the parser gave up, and not at the text that was changed
TOLD_ELSEWHERE = (
    "not YAML",
    "a row twice",
    "no description",
    "an axis left out",
    "two values on one node",
    "a row that needs itself",
    "two starts",
)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_with_file_and_line(tmp_path: Path, mistake: str) -> None:
    old, new, says = MISTAKES[mistake]
    text = (REPOSITORY / "ablations.yaml").read_text()
    assert old in text, "the test is stale"
    path = write_world(tmp_path, text.replace(old, new, 1))
    with pytest.raises(ValueError) as raised:
        load_matrix(path)
    message = str(raised.value)
    assert says in message and message.startswith(f"{path}:") and "\n" not in message
    line = int(message.removeprefix(f"{path}:").split(":")[0])
    if mistake not in TOLD_ELSEWHERE:
        assert new.split("\n")[0].split("{")[-1].split(",")[0].split(":")[0] in path.read_text().splitlines()[line - 1]


def test_an_overlay_that_misses_the_base_config_is_told_with_its_line(tmp_path: Path) -> None:
    text = (REPOSITORY / "ablations.yaml").read_text()
    wrong = text.replace("trainer.max_steps: 3", "trianer.max_steps: 3")
    number = next(n for n, line in enumerate(wrong.splitlines(), start=1) if "trianer" in line)
    with pytest.raises(ValueError, match=rf"ablations.yaml:{number}: trianer.max_steps: .* did you mean 'trainer'"):
        expand(load_world(tmp_path / "a", wrong), "smoke", [0])
    wrong = text.replace("trainer.max_steps: 3", "trainer.max_steps.more: 3")
    with pytest.raises(ValueError, match=r"trainer\.max_steps is 400 in the base config and has no keys"):
        expand(load_world(tmp_path / "b", wrong), "smoke", [0])


def test_a_missing_base_config_and_an_unknown_scale_are_told(tmp_path: Path) -> None:
    matrix = load_world(tmp_path)
    (tmp_path / "experiments/configs/micro/audio_mar.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=r"audio_mar\.yaml: there is no such file"):
        expand(matrix, "micro", [0])
    with pytest.raises(ValueError, match=r"scale 'mikro' is not known here; .* did you mean 'micro'"):
        expand(matrix, "mikro", [0])


@pytest.mark.parametrize(("content", "says"), [("", "empty"), ("- a\n", "expected a mapping"), ("a: [", "not valid")])
def test_a_file_that_is_no_matrix(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=says):
        load_matrix(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_matrix(tmp_path / "absent.yaml")


def test_words_stay_words_and_exponents_are_numbers(tmp_path: Path) -> None:
    text = (REPOSITORY / "ablations.yaml").read_text().replace("trainer.max_steps: 3", "trainer.lr: 1e-3")
    cells = expand(load_world(tmp_path, text), "smoke", [0])
    assert cells[0].config["trainer"]["lr"] == 1e-3
    assert cells[0].settings["target_position_embedding"] == "on"
