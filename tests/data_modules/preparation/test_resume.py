"""Preparation is killed at any moment, any number of times, by any number of processes: the store is the same."""

import itertools
import os
import random
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_modules.corpora.captioned_folder import CaptionedFolder, Cutting
from data_modules.preparation import assembling, encoding, reading
from data_modules.preparation import prepare as prepare_module
from data_modules.preparation.prepare import prepare_store
from tests.data_modules.folders import RATE, SECONDS, EnergyTokenizer, LetterText
from tests.data_modules.preparation.test_prepare import everything_in

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
KILLED = 9
CHANGES = ("replace", "rename", "hardlink_to", "mkdir", "unlink")  # whatever changes a folder goes through one of them


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "ROWS_PER_PIECE", 3)
    monkeypatch.setattr(encoding, "CLIPS_PER_SHARD", 4)
    monkeypatch.setattr("data_modules.preparation.work_queue.POLL_SECONDS", 0.01)


def random_folder(folder: Path, seed: int) -> CaptionedFolder:
    """Sounds of random lengths, of which some are missing, silent, broken, or there twice."""
    choose = random.Random(seed)
    folder.mkdir(parents=True)
    windows: Cutting = choose.choice(["first", "all", "random"])
    lines = ["file,caption,split", "keep.wav,this one stays,train"]
    names = ["keep.wav"]
    for number in range(choose.randint(4, 14)):
        lines.append(f"{number}.wav,sound {number} of {seed},{choose.choice(['train', 'train', 'val', 'test'])}")
        names.append(f"{number}.wav")
    for number, name in enumerate(names):
        fate = choose.choice(["fine"] * 6 + ["missing", "silent", "broken", "copy"]) if number else "fine"
        sound = np.random.default_rng([seed, number]).uniform(-0.3, 0.3, round(choose.uniform(0.05, 1.2) * RATE))
        if fate == "copy":
            shutil.copyfile(folder / "keep.wav", folder / name)
        elif fate == "broken":
            (folder / name).write_bytes(b"RIFF, but not really")
        elif fate != "missing":
            soundfile.write(folder / name, sound * (fate == "fine"), RATE)
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    return CaptionedFolder(folder / "captions.csv", folder, windows)


def prepare(source: CaptionedFolder, out: Path) -> None:
    prepare_store(source, EnergyTokenizer(), LetterText(), out, SECONDS, allow_missing=True)


def forked(work: Callable[[], None]) -> int:
    """Start `work` in a process of its own, which ends without any clearing up; returns its id."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # whatever it is, the child must not go on with the tests
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def ended(child: int) -> int:
    """Exit status of a forked process; 9 if it was killed."""
    status = os.waitpid(child, 0)[1]
    return KILLED if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def die_at(change: int) -> None:
    """Kill this process in the middle of a change of the disk: before it, if `change` is even, or behind it."""
    numbers = itertools.count()

    def deadly(original: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            now = next(numbers) == change // 2
            if now and change % 2 == 0:
                os._exit(KILLED)
            result = original(*arguments, **options)
            if now:
                os._exit(KILLED)
            return result

        return call

    for name in CHANGES:
        setattr(Path, name, deadly(getattr(Path, name)))


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_random_changes_of_the_disk_the_store_is_the_same(tmp_path: Path, seed: int) -> None:
    source, choose = random_folder(tmp_path / "sounds", seed), random.Random(seed)
    prepare(source, tmp_path / "whole" / "store")
    expected = everything_in(tmp_path / "whole")
    for trial in range(2):
        out = tmp_path / f"killed{trial}" / "store"

        for deaths in range(100):

            def work(out: Path = out, change: int = choose.randrange(20 + 10 * deaths)) -> None:
                die_at(change)
                prepare(source, out)

            status = ended(forked(work))
            if status != KILLED:
                break
        assert status == 0
        assert {path.name for path in out.parent.iterdir()} == {"store", ".store.lock"}
        assert everything_in(out.parent) == expected


def test_every_change_of_the_disk_is_a_good_place_to_die(tmp_path: Path) -> None:
    source = random_folder(tmp_path / "sounds", 3)
    prepare(source, tmp_path / "whole" / "store")
    expected = everything_in(tmp_path / "whole")
    deaths = 0
    for change in range(0, 10_000, 3):
        out = tmp_path / str(change) / "store"

        def work(out: Path = out, change: int = change) -> None:
            die_at(change)
            prepare(source, out)

        died = ended(forked(work)) == KILLED
        deaths += died
        prepare(source, out)
        assert everything_in(out.parent) == expected, f"died at change {change}"
        if not died:
            break
    assert deaths > 20


def test_kill_9_at_random_moments_by_several_processes(tmp_path: Path) -> None:
    source, choose = random_folder(tmp_path / "sounds", 1), random.Random(0)
    began = time.monotonic()
    prepare(source, tmp_path / "whole" / "store")
    seconds = time.monotonic() - began
    out = tmp_path / "killed" / "store"
    for _ in range(8):
        children = [forked(lambda: prepare(source, out)) for _ in range(2)]
        time.sleep(choose.uniform(0, 0.6 * seconds))
        for child in children:
            os.kill(child, signal.SIGKILL)
        assert {ended(child) for child in children} <= {0, KILLED}
    children = [forked(lambda: prepare(source, out)) for _ in range(3)]
    assert [ended(child) for child in children] == [0, 0, 0]
    assert everything_in(out.parent) == everything_in(tmp_path / "whole")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CaptionedFolder]:
    return random_folder(tmp_path / "sounds", 0)


def test_processes_share_the_work_and_do_nothing_twice(
    tmp_path: Path, folder: CaptionedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = tmp_path / "heard"
    read = CaptionedFolder.inspect

    def inspect(self: CaptionedFolder, row, size):  # type: ignore[no-untyped-def]  # as the original
        time.sleep(0.02)
        with heard.open("a") as file:
            file.write(f"{os.getpid()} {row.file}\n")
        return read(self, row, size)

    monkeypatch.setattr(CaptionedFolder, "inspect", inspect)
    children = [forked(lambda: prepare(folder, tmp_path / "store")) for _ in range(2)]
    assert [ended(child) for child in children] == [0, 0]
    lines = [line.split() for line in heard.read_text().splitlines()]
    assert sorted(file for _, file in lines) == sorted(row.file for row in folder.rows)
    assert {int(process) for process, _ in lines} == set(children)


@pytest.mark.parametrize("next_step", ["fit_tokenizer", "encode_clips", "locked"])
def test_a_process_that_is_overtaken_stops_without_doing_work_again(
    tmp_path: Path, folder: CaptionedFolder, monkeypatch: pytest.MonkeyPatch, next_step: str
) -> None:
    """Another process finishes the store, and removes the pieces, between two steps of this one."""
    prepare(folder, tmp_path / "alone" / "store")
    out, original, patch = tmp_path / "out" / "store", getattr(prepare_module, next_step), pytest.MonkeyPatch()

    def overtaken(*arguments: object) -> object:
        patch.undo()
        assert ended(forked(lambda: prepare(folder, out))) == 0
        monkeypatch.setattr(EnergyTokenizer, "encode", None)  # not to be called again here
        return original(*arguments)

    patch.setattr(prepare_module, next_step, overtaken)
    prepare(folder, out)
    assert EnergyTokenizer.encode is None
    assert {path.name for path in out.parent.iterdir()} == {"store", ".store.lock"}
    assert everything_in(out.parent) == everything_in(tmp_path / "alone")


def test_helpers_of_one_command_make_the_same_store(tmp_path: Path, folder: CaptionedFolder) -> None:
    prepare(folder, tmp_path / "alone" / "store")
    store = prepare_store(
        folder, EnergyTokenizer(), LetterText(), tmp_path / "two" / "store", SECONDS, allow_missing=True, processes=2
    )
    # The helper has pieces of the usual size, so that it shares none; it must do no harm.
    assert store.clips
    assert everything_in(tmp_path / "two") == everything_in(tmp_path / "alone")


def stop_before_assembly(source: CaptionedFolder, out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leave finished pieces; returns their folder."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(assembling, "finish_store", interrupt)
        prepare(source, out)
    return out.with_name(f".{out.name}.work")


@pytest.mark.parametrize("pattern", ["shard-00001-*.safetensors", "shard-00000-*.json", "tokenizer-*.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_piece_altered_on_disk_is_named_and_made_anew(
    tmp_path: Path, folder: CaptionedFolder, monkeypatch: pytest.MonkeyPatch, pattern: str, damage: str
) -> None:
    prepare(folder, tmp_path / "whole" / "store")
    out = tmp_path / "altered" / "store"
    work = stop_before_assembly(folder, out, monkeypatch)
    (piece,) = work.glob(pattern)
    content = bytearray(piece.read_bytes())
    if damage == "remove":
        piece.unlink()
    elif damage == "cut":
        piece.write_bytes(content[:-20])
    else:
        content[-3] ^= 0x80
        piece.write_bytes(content)
    others = {path: path.stat().st_mtime_ns for path in work.glob("shard-*.safetensors") if path != piece}
    if pattern.endswith(".json") and damage == "remove":  # then it isn't done
        prepare(folder, out)
    else:
        with pytest.raises(ValueError, match=rf"{piece.name}.*run the same command again") as error:
            prepare(folder, out)
        assert "\n" not in str(error.value)
        assert {path: path.stat().st_mtime_ns for path in others} == others
        prepare(folder, out)
    assert everything_in(out.parent) == everything_in(tmp_path / "whole")


def test_another_sound_in_the_meantime_is_not_taken_for_the_old_one(
    tmp_path: Path, folder: CaptionedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_before_assembly(folder, tmp_path / "out" / "store", monkeypatch)
    soundfile.write(folder.audio / "keep.wav", np.random.default_rng(9).uniform(-0.3, 0.3, RATE), RATE)
    again = CaptionedFolder(folder.captions, folder.audio, folder.windows)
    prepare(again, tmp_path / "out" / "store")
    prepare(again, tmp_path / "fresh" / "store")
    assert everything_in(tmp_path / "out") == everything_in(tmp_path / "fresh")


def test_a_sound_that_changes_under_the_hands_is_named(
    tmp_path: Path, folder: CaptionedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = EnergyTokenizer.fit

    def meddle(self: EnergyTokenizer, waveforms):  # type: ignore[no-untyped-def]  # as the original
        fit(self, waveforms)
        for row in folder.rows:
            soundfile.write(folder.audio / row.file, np.random.default_rng(9).uniform(-0.3, 0.3, RATE), RATE)

    monkeypatch.setattr(EnergyTokenizer, "fit", meddle)
    with pytest.raises(ValueError, match=r"\.wav: the sound was changed while it was prepared; run the same"):
        prepare(folder, tmp_path / "store")
