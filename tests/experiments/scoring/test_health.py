"""Each kind of unhealthy folder gets its line and its count, is refused by default and recorded where it is allowed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import experiments.commands.evaluate
from experiments.commands.evaluate import evaluate
from experiments.scoring.health import check_health
from experiments.scoring.pairs import pair_files
from tests.experiments.scoring.toy_network import tiny_toolkit, write_sound, write_sounds

NUM_CLIPS = 12
NAMES = [f"{i:03d}" for i in range(NUM_CLIPS)]
Damage = Callable[[Path, Path], None]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    write_sounds(tmp_path / "reference", NUM_CLIPS)
    write_sounds(tmp_path / "generated", NUM_CLIPS, seed=1)
    return tmp_path / "reference", tmp_path / "generated"


def samples_of(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32")[0]


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray], rate: int = 16_000) -> None:
    soundfile.write(path, change(samples_of(path)), rate, subtype="PCM_16")


def of_generated(change: Callable[[np.ndarray], np.ndarray], numbers: range, rate: int = 16_000) -> Damage:
    return lambda _, generated: [rewrite(generated / f"{NAMES[i]}.wav", change, rate) for i in numbers] and None


def of_reference(change: Callable[[np.ndarray], np.ndarray], numbers: range, rate: int = 16_000) -> Damage:
    return lambda reference, _: [rewrite(reference / f"{NAMES[i]}.wav", change, rate) for i in numbers] and None


def of_both(change: Callable[[np.ndarray], np.ndarray], numbers: range) -> Damage:
    return lambda one, two: [rewrite(side / f"{NAMES[i]}.wav", change) for side in (one, two) for i in numbers] and None


def copy(source: int, targets: range, from_reference: bool = False, to_reference: bool = False) -> Damage:
    def damage(reference: Path, generated: Path) -> None:
        path = (reference if from_reference else generated) / f"{NAMES[source]}.wav"
        for target in targets:
            shutil.copy(path, (reference if to_reference else generated) / f"{NAMES[target]}.wav")

    return damage


def own_references(reference: Path, generated: Path) -> None:
    for name in NAMES[:4]:
        soundfile.write(generated / f"{name}.flac", samples_of(reference / f"{name}.wav"), 16_000, subtype="PCM_16")
        (generated / f"{name}.wav").unlink()


def few(reference: Path, generated: Path) -> None:
    for name in NAMES[4:]:
        (reference / f"{name}.wav").unlink()
        (generated / f"{name}.wav").unlink()


def silence(clip: np.ndarray) -> np.ndarray:
    return np.zeros_like(clip)


def beside_silence(clip: np.ndarray) -> np.ndarray:
    return np.stack([silence(clip), clip], axis=1)


# kind, number of clips, damage, what the line says
CASES: list[tuple[str, int, Damage, str]] = [
    ("few clips", 4, few, "4 pairs of clips, expected at least 10: .* inception score .* is left out; add clips"),
    (
        "generated, silent",
        3,
        of_generated(silence, range(3)),
        r"3 of 12 generated clips are silent .*\(000, 001, 002\)",
    ),
    ("generated, silent", 1, of_generated(lambda x: silence(x) + 0.25, range(5, 6)), r"1 of 12 .* silent .*\(005\)"),
    ("generated, silent", 2, of_generated(lambda x: x * 1e-5, range(2)), "2 of 12 generated clips are silent"),
    ("reference, silent", 1, of_reference(silence, range(1)), "1 of 12 reference clips are silent"),
    (
        "generated, silent first channel",
        2,
        of_generated(beside_silence, range(2)),
        "sound in other channels than the fi",
    ),
    (
        "reference, silent first channel",
        1,
        of_reference(beside_silence, range(1)),
        "1 of 12 reference clips have sound",
    ),
    (
        "generated, short",
        2,
        of_generated(lambda x: x[:1] + 0.1, range(2)),
        r"2 of 12 .* shorter than 0\.05 s \(000, 001",
    ),
    ("generated, short", 4, of_generated(lambda x: x[:700], range(4)), r"4 of 12 .* \(000, 001, 002, \.\.\.\)"),
    ("reference, short", 1, of_reference(lambda x: x[:1] + 0.1, range(1)), "1 of 12 reference clips are shorter"),
    ("generated, copies", 2, copy(0, range(1, 3)), r"2 of 12 generated clips are copies .*\(001 = 000, 002 = 000\)"),
    ("reference, copies", 1, copy(0, range(1, 2), True, True), r"1 of 12 reference clips are copies .*\(001 = 000\)"),
    ("generated, one sound", 12, copy(0, range(1, 12)), "all 12 generated clips are the same sound"),
    ("reference, one sound", 12, copy(0, range(1, 12), True, True), "all 12 reference clips are the same sound"),
    ("generated, one sound", 12, of_generated(silence, range(12)), "all 12 generated clips are the same sound"),
    (
        "pairs, copied reference",
        4,
        own_references,
        r"4 of 12 generated clips are their own references \(000, 001, 002,",
    ),
    ("pairs, sample rate", 12, of_generated(lambda x: x, range(12), 44_100), "12 of 12 pairs differ in sample rate"),
    (
        "pairs, sample rate",
        12,
        of_reference(lambda x: x, range(12), 8000),
        "12 of 12 pairs differ in sample rate, and r",
    ),
    ("generated, mixed sample rates", 2, of_generated(lambda x: x, range(2), 8000), "than the others' 16000 Hz"),
    (
        "pairs, channels",
        12,
        of_generated(lambda x: np.stack([x, x], 1), range(12)),
        "12 of 12 pairs differ in the numb",
    ),
    ("pairs, channels", 2, of_reference(lambda x: np.stack([x, x], 1), range(2)), "2 of 12 pairs differ in the number"),
    (
        "pairs, length",
        12,
        of_generated(lambda x: x[:3000], range(12)),
        "12 of 12 pairs differ in length by more than 5%",
    ),
    ("pairs, length", 1, of_reference(lambda x: np.tile(x, 2), range(1)), r"1 of 12 pairs differ in length .*\(000\)"),
]


@pytest.mark.parametrize(("kind", "count", "damage", "line"), CASES, ids=[f"{kind}-{n}" for kind, n, *_ in CASES])
def test_each_fault_is_said_in_one_line_with_its_count(
    folders: tuple[Path, Path], kind: str, count: int, damage: Damage, line: str
) -> None:
    damage(*folders)
    health = check_health(pair_files(*folders))
    (found,) = [fault for fault in health.faults if fault.kind == kind]
    assert found.num_clips == count and "\n" not in found.line
    with pytest.raises(ValueError, match=line) as error:
        health.require()
    assert "--allow_faults" in str(error.value)


def both_at_another_rate(reference: Path, generated: Path) -> None:
    of_reference(lambda x: x, range(12), 8000)(reference, generated)
    of_generated(lambda x: x, range(12), 8000)(reference, generated)


HEALTHY: list[tuple[str, Damage]] = [
    ("nothing", lambda *_: None),
    ("length within 5 %", of_generated(lambda x: np.append(x, np.zeros(160)), range(12))),
    ("both at another rate", both_at_another_rate),
    ("both stereo", of_both(lambda x: np.stack([x, x], 1), range(12))),
    ("an offset, and low level", of_generated(lambda x: 0.2 + x * 1e-2, range(12))),
]


@pytest.mark.parametrize("damage", [damage for _, damage in HEALTHY], ids=[name for name, _ in HEALTHY])
def test_healthy_folders_have_no_faults(folders: tuple[Path, Path], damage: Damage) -> None:
    damage(*folders)
    health = check_health(pair_files(*folders))
    assert not health.faults
    health.require()


def test_a_folder_against_itself_is_no_fault(folders: tuple[Path, Path]) -> None:
    assert not check_health(pair_files(folders[0], folders[0])).faults


def test_several_faults_are_all_said(folders: tuple[Path, Path]) -> None:
    of_generated(silence, range(2))(*folders)
    of_reference(lambda x: x[:1000], range(3, 4))(*folders)
    with pytest.raises(
        ValueError, match=r"1\. 2 of 12 generated clips are silent.*2\. 1 of 12 .* copies.*3\. .*length"
    ):
        check_health(pair_files(*folders)).require()


def test_unreadable_files_are_all_named(folders: tuple[Path, Path]) -> None:
    (folders[1] / "001.wav").write_text("no sound")
    soundfile.write(folders[1] / "003.wav", np.zeros(0), 16_000)
    soundfile.write(folders[1] / "005.wav", np.full(4000, np.nan), 16_000, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"3 of 12 files can't be scored: .*001\.wav.*003\.wav: holds 0.*005.*finite"):
        check_health(pair_files(*folders))


def test_evaluate_refuses_faults_or_records_them(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(experiments.commands.evaluate, "load_score_set", lambda *_, **__: tiny_toolkit())
    of_generated(silence, range(3))(*folders)
    write_sound(folders[1] / "extra.wav", 5)
    out = tmp_path / "out" / "metrics.json"
    with pytest.raises(ValueError, match=r"reference lacks 1 of the clips to score \(extra\)"):
        evaluate(*folders, out=out, judges=tmp_path / "judges")
    with pytest.raises(ValueError, match="3 of 12 generated clips are silent"):
        evaluate(*folders, out=out, judges=tmp_path / "judges", allow_partial=True)
    assert not out.exists() and not (tmp_path / "judges").exists()
    assert evaluate(*folders, out=out, judges=tmp_path / "judges", allow_partial=True, allow_faults=True) == 0
    metrics = json.loads(out.read_text())
    assert metrics["extra"] == ["extra"] and metrics["protocol"]["generated"]["num_extra"] == 1
    counts = {fault["kind"]: fault["num_clips"] for fault in metrics["health"]["faults"]}
    assert counts == {"generated, silent": 3, "generated, copies": 2}
    assert metrics["health"]["reference_seconds"] == [0.25, 0.25]
    shown = capsys.readouterr().out
    assert "fault: 3 of 12 generated clips are silent" in shown
    assert "1 generated files have no reference and were left out" in shown
