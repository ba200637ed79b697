import csv
import errno
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from data_modules.corpora.captioned_folder import CaptionedFolder, clip_ids
from data_modules.preparation import assembling
from data_modules.preparation.findings import UnusableClipsError
from data_modules.preparation.machine import worker_number
from data_modules.preparation.prepare import prepare_store
from data_modules.store.store import Store, is_store
from mntp.audio.files import read_audio
from mntp.audio.log_mel import normalise
from tests.data_modules.folders import (
    RATE,
    SECONDS,
    EnergyTokenizer,
    LetterText,
    write_clips,
    write_folder,
    write_sound,
)
from tests.disks import disk_of


def prepare(audio: Path, out: Path, windows: Any = "first", seconds: float = SECONDS, **settings: Any) -> Store:
    source = CaptionedFolder(audio / "captions.csv", audio, windows)
    return prepare_store(source, EnergyTokenizer(), LetterText(), out, seconds, **settings)


def everything_in(folder: Path) -> dict[str, str]:
    """Hash of each file below a folder, hidden ones too; locks and work in progress aside."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    files = [path for path in files if not any(part.endswith(".work") for part in path.parts)]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_tokens_text_and_audio_are_those_of_the_table(tmp_path: Path) -> None:
    write_clips(tmp_path / "audio")
    store = prepare(tmp_path / "audio", tmp_path / "store")
    with (tmp_path / "audio" / "captions.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [(clip.file, clip.caption, clip.split) for clip in store.clips] == [tuple(row.values()) for row in table]
    tokenizer = EnergyTokenizer()
    tokenizer.load_state_dict(store.preprocessing()["tokenizer"]["state"])
    for row, clip in enumerate(store.clips):
        waveform = normalise(read_audio(tmp_path / "audio" / clip.file))
        torch.testing.assert_close(store.tokens(row), tokenizer.encode(waveform[None])[0], atol=1e-3, rtol=1e-3)
        assert store.text(row)["words"][:, 0].tolist() == [len(word) for word in clip.caption.split()]
        if clip.split != "train":
            torch.testing.assert_close(read_audio(store.audio_path(row)), waveform, atol=1 / 32768, rtol=0)


def test_a_clip_may_hold_less_sound_than_it_is_long(tmp_path: Path) -> None:
    """The paper's clips: 10 s of sound, silence up to 10.24 s; here half of a clip."""
    write_clips(tmp_path / "audio")
    half = SECONDS / 2
    store = prepare(tmp_path / "audio", tmp_path / "store", windows="all", sound_seconds=half)
    assert {clip.seconds for clip in store.clips} == {half}
    assert sorted({clip.start for clip in store.clips}) == [0.0, half]  # nothing of a sound is lost
    row = next(row for row, clip in enumerate(store.clips) if clip.split == "val" and clip.start == half)
    heard, whole = read_audio(store.audio_path(row)), read_audio(tmp_path / "audio" / store.clips[row].file)
    middle = round(half * RATE)
    assert len(heard) == round(SECONDS * RATE) and not heard[middle:].any()
    torch.testing.assert_close(heard[:middle], normalise(whole[middle:]), atol=1 / 32768, rtol=0)
    with pytest.raises(ValueError, match="was prepared with sound_seconds"):
        prepare(tmp_path / "audio", tmp_path / "store", windows="all")
    with pytest.raises(ValueError, match=r"sound_seconds is .*; expected more than 0 and at most seconds"):
        prepare(tmp_path / "audio", tmp_path / "other", sound_seconds=2 * SECONDS)


def test_the_tokenizer_learns_from_the_training_split_alone(tmp_path: Path) -> None:
    write_clips(tmp_path / "audio")
    source = CaptionedFolder(tmp_path / "audio" / "captions.csv", tmp_path / "audio")
    tokenizer = EnergyTokenizer()
    prepare_store(source, tokenizer, LetterText(), tmp_path / "store", SECONDS)
    assert tokenizer.num_fitted == 6
    gain = tokenizer.gain.clone()
    for number in range(3):
        write_sound(tmp_path / "audio" / f"val{number}.wav", SECONDS, seed=99 + number)
    prepare_store(source, tokenizer, LetterText(), tmp_path / "other", SECONDS)
    assert torch.equal(tokenizer.gain, gain)


def test_a_short_sound_is_normalised_alone_and_padded_with_exact_silence(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.wav": (0.1, "train"), "b.wav": (0.2, "val")})
    store = prepare(tmp_path, tmp_path / "store")
    padded = read_audio(store.audio_path(1))
    assert padded[: round(0.2 * RATE)].abs().max() == pytest.approx(0.5, abs=1e-3)
    assert not padded[round(0.2 * RATE) :].any()
    assert [store.num_valid_tokens(row) for row in (0, 1)] == [4, 8]
    assert [clip.seconds for clip in store.clips] == [0.1, 0.2]


def test_first_and_all_windows(tmp_path: Path) -> None:
    # 0.32 s a window: 0.9 s is two and a remainder of 0.26 s; 0.7 s leaves 0.06 s, which is too short.
    write_folder(tmp_path, {"a.wav": (0.9, "train"), "b.wav": (0.7, "val"), "c.wav": (0.05, "test")})
    first = prepare(tmp_path, tmp_path / "first")
    assert [(clip.id, clip.seconds) for clip in first.clips] == [("a", 0.32), ("b", 0.32), ("c", 0.05)]
    every = prepare(tmp_path, tmp_path / "all", windows="all")
    assert [(clip.id, clip.start, round(clip.seconds, 4)) for clip in every.clips] == [
        ("a-w000", 0.0, 0.32),
        ("a-w001", 0.32, 0.32),
        ("a-w002", 0.64, 0.26),
        ("b-w000", 0.0, 0.32),
        ("b-w001", 0.32, 0.32),
        ("c-w000", 0.0, 0.05),
    ]
    assert every.index["coverage"]["dropped_windows"] == {"short remainder": 1}
    assert every.index["coverage"]["windows"] == 6
    sound = read_audio(tmp_path / "b.wav")[5120:10240]
    torch.testing.assert_close(read_audio(every.audio_path(4)), normalise(sound), atol=1 / 32768, rtol=0)


def test_silent_windows_are_dropped_and_counted(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.wav": (1.28, "train")})
    sound, _ = soundfile.read(tmp_path / "a.wav")
    sound[:5120] = 0.25
    sound[10240:15360] = 0
    soundfile.write(tmp_path / "a.wav", sound, RATE)
    every = prepare(tmp_path, tmp_path / "all", windows="all")
    assert [(clip.id, clip.start) for clip in every.clips] == [("a-w001", 0.32), ("a-w003", 0.96)]
    assert every.index["coverage"]["dropped_windows"] == {"silent": 2}
    first = prepare(tmp_path, tmp_path / "first")
    assert [(clip.id, clip.start) for clip in first.clips] == [("a", 0.32)]


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        (["a.wav", "x/b.flac"], ["a", "b"]),
        (["x/a.wav", "y/a.wav", "b.wav"], ["x__a", "y__a", "b"]),
        (["x/a.wav", "y/A.wav"], ["x__a", "y__A"]),
        (["größe 1.wav", ".hidden.wav", "-.wav"], ["gr__e_1", "hidden", "clip"]),
    ],
)
def test_ids_are_stems_made_safe_and_unique(files: list[str], ids: list[str]) -> None:
    assert clip_ids(files) == ids


def test_ids_stay_unique_where_stems_and_folders_collide() -> None:
    files = ["a.wav", "a.flac", "x/a.wav", "x__a.wav", "雨.wav", "雪.wav", f"{'n' * 200}1.wav", f"{'n' * 200}2.wav"]
    ids = clip_ids(files)
    assert len({id.casefold() for id in ids}) == len(files)
    assert all(id.isascii() and "/" not in id and len(id) < 120 for id in ids)


def broken(folder: Path) -> dict[str, str]:
    """Spoil sounds of `write_clips`, each in its own way; returns the reasons."""
    (folder / "train1.wav").unlink()
    (folder / "train2.wav").write_bytes(b"RIFF, but not really")
    soundfile.write(folder / "train3.wav", np.zeros(0), RATE)
    soundfile.write(folder / "val0.wav", np.full(5120, np.nan, np.float32), RATE, subtype="FLOAT")
    soundfile.write(folder / "test1.wav", np.full(5120, 0.2), RATE)
    soundfile.write(folder / "val1.wav", np.linspace(-0.1, 0.1, 500), RATE)
    (folder / "train4.wav").write_bytes((folder / "test0.wav").read_bytes())
    return {
        "train1.wav": "missing",
        "train2.wav": "unreadable",
        "train3.wav": "empty",
        "train4.wav": "duplicate",
        "val0.wav": "non-finite",
        "val1.wav": "too short",
        "test1.wav": "silent",
    }


def test_all_unusable_sounds_are_listed_before_anything_is_written(tmp_path: Path) -> None:
    write_clips(tmp_path / "audio")
    reasons = broken(tmp_path / "audio")
    with pytest.raises(UnusableClipsError, match=r"7 of 11 sounds can't be used .*1 missing.*--allow_missing") as error:
        prepare(tmp_path / "audio", tmp_path / "out" / "store")
    assert {problem.file: problem.reason for problem in error.value.problems} == reasons
    assert "\n" not in str(error.value)
    assert everything_in(tmp_path / "out") == {}


def test_unusable_sounds_are_left_out_and_recorded_when_allowed(tmp_path: Path) -> None:
    write_clips(tmp_path / "audio")
    reasons = broken(tmp_path / "audio")
    coverage = prepare(tmp_path / "audio", tmp_path / "store", allow_missing=True).index["coverage"]
    assert {problem["file"]: problem["reason"] for problem in coverage["problems"]} == reasons
    assert (coverage["rows"], coverage["stored"], coverage["windows"]) == (11, 4, 4)
    assert sum(coverage["reasons"].values()) + coverage["stored"] == coverage["rows"]


def test_nothing_to_learn_from_is_said(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.wav": (0.3, "val")})
    with pytest.raises(ValueError, match="no usable sound in the split train"):
        prepare(tmp_path, tmp_path / "store")


def test_same_input_same_bytes_wherever_it_lies(tmp_path: Path) -> None:
    for name in ("here", "there"):
        write_clips(tmp_path / name / "audio")
        prepare(tmp_path / name / "audio", tmp_path / name / "store")
    assert everything_in(tmp_path / "here" / "store") == everything_in(tmp_path / "there" / "store")


def test_a_finished_store_is_opened_refused_or_replaced(tmp_path: Path) -> None:
    write_clips(tmp_path / "audio")
    first = prepare(tmp_path / "audio", tmp_path / "store")
    before = everything_in(tmp_path / "store")
    assert prepare(tmp_path / "audio", tmp_path / "store").fingerprint == first.fingerprint
    with pytest.raises(ValueError, match=r"prepared with source\.windows = 'first', asked for 'all'; .*--overwrite"):
        prepare(tmp_path / "audio", tmp_path / "store", windows="all")
    with pytest.raises(ValueError, match=r"prepared with seconds = 0\.32, asked for 0\.16"):
        prepare(tmp_path / "audio", tmp_path / "store", seconds=0.16)
    write_sound(tmp_path / "audio" / "train0.wav", 2 * SECONDS)
    with pytest.raises(ValueError, match=r"prepared with source\.file_sizes"):
        prepare(tmp_path / "audio", tmp_path / "store")
    assert everything_in(tmp_path / "store") == before
    replaced = prepare(tmp_path / "audio", tmp_path / "store", windows="all", overwrite=True)
    assert replaced.clips[1].id == "train0-w001"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".store.lock", "audio", "store"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_store_is_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    write_clips(tmp_path / "audio")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "thesis.txt").write_text("five years")
    with pytest.raises(ValueError, match="holds other files and is no store"):
        prepare(tmp_path / "audio", tmp_path / "store", overwrite=overwrite)
    with pytest.raises(ValueError, match="is a file"):
        prepare(tmp_path / "audio", tmp_path / "store" / "thesis.txt", overwrite=overwrite)
    assert (tmp_path / "store" / "thesis.txt").read_text() == "five years"
    (tmp_path / "empty").mkdir()
    assert is_store(prepare(tmp_path / "audio", tmp_path / "empty").path)


def test_a_window_must_hold_whole_tokens(tmp_path: Path) -> None:
    write_clips(tmp_path / "audio")
    with pytest.raises(ValueError, match="does not fill whole frames"):
        prepare(tmp_path / "audio", tmp_path / "store", seconds=1.0)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])
def test_an_interrupt_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, overwrite: bool
) -> None:
    write_clips(tmp_path / "audio")
    if overwrite:
        prepare(tmp_path / "audio", tmp_path / "out" / "store")
    before = everything_in(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(assembling, "finish_store", fail)
        with pytest.raises(type(error)):
            prepare(tmp_path / "audio", tmp_path / "out" / "store", overwrite=overwrite)
    assert everything_in(tmp_path) == before
    assert is_store(prepare(tmp_path / "audio", tmp_path / "out" / "store", overwrite=overwrite).path)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_running_out_of_memory_is_named_and_keeps_what_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    write_clips(tmp_path / "audio")

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(EnergyTokenizer, "encode", fail)
        with pytest.raises(OSError, match="out of memory at shard 0; what was done is kept: use fewer") as caught:
            prepare(tmp_path / "audio", tmp_path / "store")
    assert caught.value.errno == errno.ENOMEM
    assert [path.name[:9] for path in (tmp_path / ".store.work").glob("*.safetensors")] == ["tokenizer"]
    with monkeypatch.context() as patch:  # an error of another kind keeps its own face
        patch.setattr(EnergyTokenizer, "encode", lambda *_: (_ for _ in ()).throw(RuntimeError("a bug")))
        with pytest.raises(RuntimeError, match="a bug"):
            prepare(tmp_path / "audio", tmp_path / "store")


def test_tasks_of_a_slurm_array_begin_at_different_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    assert worker_number(1, 2) == (1, 2)
    for name, value in {"TASK_ID": 7, "TASK_MIN": 5, "TASK_COUNT": 4}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_{name}", str(value))
    assert worker_number(1, 2) == (5, 8)


KILLED = """
import os, sys
from pathlib import Path
from data_modules.preparation import assembling as module
from tests.data_modules.preparation.test_prepare import prepare
module.finish_store = lambda *_, **__: os.kill(os.getpid(), 9)
prepare(Path(sys.argv[1]), Path(sys.argv[2]), overwrite=True)
"""


def test_kill_9_costs_the_interrupted_work_alone(tmp_path: Path) -> None:
    audio, out = tmp_path / "audio", tmp_path / "out" / "store"
    write_clips(audio)
    old = everything_in(prepare(audio, out).path)
    killed = subprocess.run([sys.executable, "-c", KILLED, audio, out], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert (out.parent / ".store.partial" / "audio").is_dir()
    assert everything_in(out) == old
    prepare(audio, out, overwrite=True)
    assert sorted(path.name for path in out.parent.iterdir()) == [".store.lock", "store"]
    # Killed between the two renames of a replacement: the old store comes back.
    out.rename(out.with_name(".store.old"))
    assert prepare(audio, out, windows="first").fingerprint == Store(out).fingerprint
    assert everything_in(out) == old


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 112 KiB."""
    with disk_of("112k", tmp_path / "disk") as disk:
        yield disk


# A full disk makes libsndfile's write callbacks complain before the error itself arrives.
@pytest.mark.parametrize(("train", "val"), [(600, 1), (6, 60)], ids=["full at a shard", "full at a sound"])
def test_a_full_disk_is_named_and_keeps_the_finished_store(
    tmp_path: Path, small_disk: Path, train: int, val: int
) -> None:
    out = small_disk / "store"
    write_clips(tmp_path / "small", val=1, test=1)
    before = everything_in(prepare(tmp_path / "small", out).path)
    write_clips(tmp_path / "large", train, val, test=1)
    for target in (out, small_disk / "new"):
        with pytest.raises(OSError, match=f"{target} could not be written .*No space left.*make room") as error:
            prepare(tmp_path / "large", target, overwrite=True)
        assert error.value.errno == errno.ENOSPC
        assert "\n" not in str(error.value)
    assert everything_in(small_disk) == {f"store/{file}": content for file, content in before.items()}
    Store(out).verify()
    assert prepare(tmp_path / "small", out).clips
