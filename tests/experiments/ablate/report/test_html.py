"""The report: one offline file that holds what the run folders say, and runs nothing that they say."""

import base64
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

from experiments.ablate.plan.cell_state import cell_state
from experiments.ablate.plan.plan_file import Plan, PlannedCell, PlannedTable, read_plan, write_plan
from experiments.ablate.report.audio import encoded, heard_prompts, spectrogram_jpeg
from experiments.ablate.report.html import write_report
from experiments.ablate.results.table import Result
from experiments.ablate.slurm.array import ATTEMPT
from tests.experiments.ablate.results_support import (
    cell,
    finish,
    plan_of,
    scores,
    scoring_folder,
    write_config,
    write_sounds,
    write_store,
)

EVIL = "<script>document.title = 'run'</script><img src=x onerror=alert(1)> & \"a dog\""
NAMES = [f"test-{number:05}.wav" for number in range(6)]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class _Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def world(tmp_path: Path) -> tuple[Path, list[PlannedCell]]:
    """Ground truth, two finished rows with sounds and losses, one that failed; every text of the user's is HTML."""
    store = tmp_path / "store"
    write_store(store, {name: f"{name} {EVIL}" for name in NAMES})
    cells = [
        cell(tmp_path, "table3", "truth", reference=True, source="ground_truth", system=""),
        cell(tmp_path, "table3", "G", description=EVIL, differences={"model.name": EVIL}, published={"fd": "14.81"}),
        cell(tmp_path, "table3", "I"),
        cell(tmp_path, "table3", "K"),
    ]
    for item, fd in zip(cells[:3], (0.0, 2.5, 3.5), strict=True):
        finish(item, scores(fd, None), dirty=True, host="node7", versions={"torch": "2.14.1"})
        write_config(item, store)
        lines = [{"step": step, "train/loss": 1 / (1 + step)} for step in range(0, 900, 10)]
        lines[3]["train/loss"] = None
        text = "\n".join(map(json.dumps, lines)) + '\n{"step": 9'
        (Path(item.run_dir) / "metrics.jsonl").write_text(text)
    for item in cells[1:3]:
        write_sounds(scoring_folder(item) / "wav", NAMES)
    failed = scoring_folder(cells[3])
    failed.mkdir(parents=True)
    (failed / "failure.json").write_text(json.dumps({"reason": f"exit code 1\nTraceback\nValueError: {EVIL}"}))
    schedules = {
        "C": {"class_path": "mntp.masking.ClippedNormal", "init_args": {"loc": 0.75, "scale": 0.1}},
        "unused": {"class_path": "mntp.masking.Fixed", "init_args": {"value": 0.1}},
    }
    plan = plan_of(*cells, table3=PlannedTable(f"Table 3 {EVIL}", baseline="G"))
    write_plan(replace(plan, schedules=schedules), tmp_path)
    return tmp_path, cells


def test_everything_is_inside_and_nothing_that_is_quoted_is_html(world: tuple[Path, list[PlannedCell]]) -> None:
    page = _Page(text := write_report(world[0], 2, 20).read_text())
    assert not page.all("script") and not page.all("link") and not page.all("iframe")
    addresses = [value for _, tag in page.tags for name, value in tag.items() if name in ("src", "href", "poster")]
    assert addresses and all(address.startswith(("data:", "#")) for address in addresses)
    assert not [name for _, tag in page.tags for name in tag if name.startswith("on")]
    assert "url(" not in text and "@import" not in text
    # caption (2 prompts), heading, description, difference, failure: as text, character by character
    assert page.text.count(EVIL) >= 6
    ids = {tag["id"] for _, tag in page.tags if "id" in tag}
    assert {address[1:] for address in addresses if address.startswith("#")} <= ids


def test_it_says_what_the_tables_and_the_folders_say(world: tuple[Path, list[PlannedCell]]) -> None:
    page = _Page(write_report(world[0], 2, 20).read_text())
    for part in ("2.500", "3 done", "1 failed", "0123abc with uncommitted changes", "node7", "torch 2.14.1",
                 "Traceback", "ClippedNormal(0.75, 0.1)", "not comparable", "14.81", "split", "1:20"):  # fmt: skip
        assert part in page.text, part
    assert "Fixed(0.1)" not in page.text, "a schedule that no row uses"
    assert [tag for tag in page.all("img") if "training losses of 2 runs" in tag["alt"]]
    assert (world[0] / "table3.tex").is_file()


def test_a_schedule_that_cannot_be_drawn_is_named(world: tuple[Path, list[PlannedCell]]) -> None:
    spec = {"class_path": "somebodys.package.Own", "init_args": {"value": 0.1}}
    write_plan(replace(read_plan(world[0]), schedules={"C": spec}), world[0])
    page = _Page(write_report(world[0], 0, 20).read_text())
    assert "The schedule C is not drawn: " in page.text and "--import somebodys" in page.text


def test_the_same_clips_can_be_heard_in_every_cell(world: tuple[Path, list[PlannedCell]]) -> None:
    folder, cells = world
    (scoring_folder(cells[2]) / "wav" / NAMES[0]).unlink()  # one cell lacks it: it is no common prompt
    page = _Page(write_report(folder, 2, 20).read_text())
    assert len(page.all("audio")) == 2 * 3
    assert "test-00001.wav" in page.text and "test-00003.wav" in page.text and NAMES[0] not in page.text
    kind, _, content = page.all("audio")[0]["src"].partition(";base64,")
    assert kind in ("data:audio/mpeg", "data:audio/flac")
    heard, rate = soundfile.read(io.BytesIO(base64.b64decode(content)))
    spectrum = np.abs(np.fft.rfft(heard))
    original, _ = soundfile.read(folder / "store" / "audio" / "test" / "test-00001.wav")
    expected = np.fft.rfftfreq(len(original), 1 / rate)[np.abs(np.fft.rfft(original)).argmax()]
    assert np.fft.rfftfreq(len(heard), 1 / rate)[spectrum.argmax()] == pytest.approx(expected, rel=0.05)


def test_the_cap_drops_prompts_then_cells_and_says_so(world: tuple[Path, list[PlannedCell]]) -> None:
    plan = read_plan(world[0])
    results = [Result(item, cell_state(item)) for item in plan.cells]

    def heard(most: int, max_bytes: float) -> tuple[list[int], str]:
        prompts, left_out = heard_prompts(plan, results, most, int(max_bytes))
        assert sum(len(s.audio) + len(s.spectrogram) for p in prompts for s in p.sounds) <= max_bytes
        return [len(prompt.sounds) for prompt in prompts], left_out

    first = heard_prompts(plan, results, 1, 10**9)[0][0]
    weight = sum(len(sound.audio) + len(sound.spectrogram) for sound in first.sounds)
    assert heard(6, 10**9) == ([3] * 6, "")
    counts, left_out = heard(6, 2.5 * weight)
    assert counts == [3, 3] and left_out.startswith("2 of 6 prompts, to stay below the cap of")
    counts, left_out = heard(6, 0.8 * weight)
    assert counts == [2] and "all prompts but one, and 3I" in left_out
    assert heard(0, 10**9) == ([], "")
    assert heard(6, 0)[0] == [0]


def test_damaged_files_are_that_cells_and_the_page_stands(world: tuple[Path, list[PlannedCell]]) -> None:
    folder, cells = world
    (scoring_folder(cells[1]) / "wav" / NAMES[0]).write_bytes(b"no sound")
    (scoring_folder(cells[2]) / "metrics.json").write_text('{"fd_judge": 2')
    shutil.rmtree(folder / "store")
    page = _Page(write_report(folder, 1, 20).read_text())
    assert "test-00000.wav can't be read" in page.text and not page.all("audio")
    assert "metrics.json: not JSON" in page.text and "2 failed" in page.text


def test_jobs_are_shown_where_there_were_any(world: tuple[Path, list[PlannedCell]]) -> None:
    folder, cells = world
    assert "restarts" not in write_report(folder, 0, 20).read_text()
    for item, nodes in ((cells[1], "n[1-2]"), (cells[3], EVIL)):  # done, failed
        attempt = {"job": "100_3", "restarts": 2, "nodes": nodes, "outcome": "", "time": 0.0}
        (Path(item.run_dir) / ATTEMPT).write_text(json.dumps(attempt))
    (Path(cells[2].run_dir) / ATTEMPT).write_text("damaged")
    text = write_report(folder, 0, 20).read_text()
    lines = {line.partition("</td>")[0]: line for line in text.splitlines() if "<td><code>" in line}
    end = '<td><code>100_3</code></td><td class="number">2</td><td>n[1-2]</td></tr>'
    assert lines["<tr><td>3G"].endswith(end)
    assert "<code>100_3</code>" in lines["<tr><td>3K"] and EVIL not in text
    assert lines["<tr><td>3I"].endswith('<td><code></code></td><td class="number"></td><td></td></tr>')


def test_a_page_of_nothing(tmp_path: Path) -> None:
    write_plan(plan_of(cell(tmp_path, "table3", "G")), tmp_path)
    page = _Page(write_report(tmp_path, 4, 20).read_text())
    assert "Not run: 3G (not started yet)" in page.text and not page.all("audio") and not page.all("img")
    with pytest.raises(ValueError, match="neither can be negative"):
        write_report(tmp_path, -1, 20)
    write_plan(Plan("m", "micro", "embedded", {}, {}, ()), tmp_path)
    assert "provenance" in write_report(tmp_path, 4, 20).read_text()


def test_sounds_are_small_and_spectrograms_show_their_pitch() -> None:
    from matplotlib.image import imread

    time = np.arange(16_000) / 16_000
    low, high = (np.sin(2 * np.pi * pitch * time).astype(np.float32) for pitch in (300, 6000))
    assert len(encoded(low, 16_000)[0]) < 32_000 / 2, "half of 16-bit samples"
    rows = [imread(io.BytesIO(spectrogram_jpeg(wave)), format="jpg").sum(axis=(1, 2)).argmax() for wave in (low, high)]
    assert rows[1] < rows[0], "the top row is the highest band"
    spectrogram_jpeg(np.zeros(4000, dtype=np.float32))
    with pytest.raises(ValueError, match="a spectrogram needs"):
        spectrogram_jpeg(low[:100])


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no Chromium here: install the system package chromium")
def test_a_browser_runs_nothing_and_shows_it_all(world: tuple[Path, list[PlannedCell]]) -> None:
    path = write_report(world[0], 1, 20)
    assert BROWSER is not None
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={world[0] / 'profile'}"]
    done = subprocess.run(
        [*command, "--dump-dom", "--window-size=400,800", path.as_uri()], capture_output=True, text=True, timeout=120,
        check=True,
    )  # fmt: skip
    assert re.search("<title>ablations, scale micro</title>", done.stdout), "the caption's script changed it"
    page = _Page(done.stdout)
    assert EVIL in page.text and len(page.all("audio")) == 3
    picture = world[0] / "page.png"
    subprocess.run(
        [*command, f"--screenshot={picture}", "--window-size=400,800", path.as_uri()], capture_output=True, timeout=120,
        check=True,
    )  # fmt: skip
    assert len(np.unique(_pixels(picture))) > 10, "not an empty page"


def _pixels(path: Path) -> np.ndarray:
    from matplotlib.image import imread

    return imread(path)
