"""`mntp prepare` as a user meets it: what it prints, its exit code, and that a finished store survives."""

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_modules.store.store import Store
from experiments.main import main
from tests.data_modules.folders import RATE, write_clips

REAL = Path(__file__).parents[4] / "shared" / "data" / "real"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def command(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["mntp", "prepare", *map(str, words)])
        with pytest.raises(SystemExit) as exit:
            main()
        return int(exit.value.code or 0)

    return command


def options(folder: Path, out: Path) -> list[object]:
    return ["--captions", folder / "captions.csv", "--audio", folder, "--out", out, "--seconds", 0.32, "--token-dim", 8]


def test_a_store_is_prepared_and_summed_up(
    tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    write_clips(tmp_path / "audio")
    assert run(*options(tmp_path / "audio", tmp_path / "store")) == 0
    store = Store(tmp_path / "store")
    assert store.tokens(0).shape == (8, 8)
    printed = capsys.readouterr().out
    assert f"11 of 11 sounds, 11 clips of 0.32 s; fingerprint {store.fingerprint}" in printed
    assert "train: 6 clips, 1.9 s of sound" in printed
    assert "reconstruction of 3 val clips: linear_rmse_db" in printed


def spoil_table(content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "captions.csv").write_text(content)


def not_finite(folder: Path) -> None:
    soundfile.write(folder / "test0.wav", np.full(5120, np.inf, np.float32), RATE, subtype="FLOAT")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "val1.wav").unlink(), "first: val1.wav: missing"),
        (lambda folder: (folder / "val1.wav").write_bytes(b"no sound"), "first: val1.wav: unreadable"),
        (not_finite, "first: test0.wav: non-finite"),
        (spoil_table(""), "captions.csv: the table is empty; expected CSV with a header"),
        (spoil_table("file;caption\na.wav;rain\n"), "captions.csv, line 1: no column file, caption"),
        (spoil_table("file,caption\n../a.wav,rain\n"), "captions.csv, line 2: file '../a.wav' leaves the audio folder"),
        (spoil_table("file,caption\ntrain0.wav,?!\n"), "captions.csv, line 2: the caption '?!' of 'train0.wav' has no"),
    ],
    ids=["missing", "unreadable", "non-finite", "empty table", "malformed table", "leaves the folder", "no words"],
)
def test_bad_input_is_one_line_and_costs_nothing(
    tmp_path: Path,
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], object],
    message: str,
) -> None:
    audio, out = tmp_path / "audio", tmp_path / "store"
    write_clips(audio)
    assert run(*options(audio, out)) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    capsys.readouterr()
    spoil(audio)
    assert run(*options(audio, out), "--overwrite") == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_every_unusable_sound_is_listed(
    tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    write_clips(tmp_path / "audio")
    (tmp_path / "audio" / "train5.wav").unlink()
    not_finite(tmp_path / "audio")
    listed = {"train5.wav: missing", "test0.wav: non-finite"}
    assert run(*options(tmp_path / "audio", tmp_path / "store")) == 2
    assert listed <= set(capsys.readouterr().err.splitlines())
    assert run(*options(tmp_path / "audio", tmp_path / "store"), "--allow-missing") == 0
    captured = capsys.readouterr()
    assert listed <= set(captured.err.splitlines())
    assert "9 of 11 sounds, 9 clips" in captured.out


def test_several_corpora_are_prepared_from_a_list(
    tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    write_clips(tmp_path / "a")
    write_clips(tmp_path / "b", train=2, val=0, test=0)
    for path in (tmp_path / "b").glob("*.wav"):
        path.write_bytes((tmp_path / "a" / path.name).read_bytes())
    (tmp_path / "list.yaml").write_text(
        "first: {captions: a/captions.csv, audio: a}\nsecond: {captions: b/captions.csv, audio: b, weight: 2}\n"
    )
    words = ["--corpora", tmp_path / "list.yaml", "--out", tmp_path / "store", "--seconds", 0.32, "--token-dim", 8]
    assert run(*words) == 2
    assert "second/train0.wav: duplicate" in capsys.readouterr().err
    assert run(*words, "--allow-missing", "--device", "cpu", "--processes", 1) == 0
    printed = capsys.readouterr().out
    assert "11 of 13 sounds" in printed
    assert "left out: 2 duplicate" in printed
    assert "second: 0 of 2 sounds" in printed
    assert run(*words, "--allow-missing", "--captions", tmp_path / "a" / "captions.csv") == 2
    assert "give either --captions and --audio, or --corpora" in capsys.readouterr().err
    assert run("--corpora", tmp_path / "list.yaml", "--out", tmp_path / "few", "--limit", 4, "--seconds", 0.32) == 0
    assert "4 of 4 sounds" in capsys.readouterr().out


@pytest.mark.skipif(not REAL.is_dir(), reason="the real captioned set lies beside the repository, and is not there")
def test_some_of_the_real_set(tmp_path: Path, run: Callable[..., int]) -> None:
    with (REAL / "captions.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    with (tmp_path / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([rows[0], *rows[1::30]])
    words = ["--captions", tmp_path / "captions.csv", "--audio", REAL, "--out", tmp_path / "store", "--windows", "all"]
    assert run(*words) == 0
    store = Store(tmp_path / "store")
    assert len({clip.file for clip in store.clips}) == len(rows[1::30])
    assert store.tokens(0).shape == (64, 32)
    # The share of the log-mel that 32 of 256 values lose, over sound alone; padding would flatter it.
    assert store.index["reconstruction"]["linear_rmse_db"] < 3
