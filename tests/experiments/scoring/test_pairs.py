"""Files are paired by name without suffix; nothing is dropped in silence."""

from pathlib import Path

import pytest

from experiments.scoring.pairs import audio_files, captions_by_clip, clip_name, pair_files
from tests.experiments.scoring.toy_network import write_sound, write_sounds


def numbered(*numbers: int) -> list[str]:
    return [f"{number:03d}" for number in numbers]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a.wav", "a"),
        ("audio/train/a.FLAC", "a"),
        ("a.mp3", "a"),
        ("a.v2.wav", "a.v2"),
        ("a.v2", "a.v2"),
        (".wav", ".wav"),
        ("a", "a"),
    ],
)
def test_a_name_is_without_folders_and_the_suffix_of_audio(file: str, name: str) -> None:
    assert clip_name(file) == name


def test_folders_must_hold_the_same_clips(tmp_path: Path) -> None:
    one, two = (tmp_path / "one", tmp_path / "two")
    write_sounds(one, 30)
    write_sounds(two, 5)
    (two / "more.flac").write_bytes((one / "000.wav").read_bytes())
    message = r"two lacks 25 of the clips to score \(005, .*024, \.\.\.\).*--allow_partial"
    with pytest.raises(ValueError, match=message) as error:
        pair_files(one, two)
    assert "025" not in str(error.value)
    with pytest.raises(ValueError, match=r"one lacks 1 of the clips to score \(more\)"):
        pair_files(two, one)


def test_partial_sets_give_the_common_clips_what_is_missing_and_what_is_extra(tmp_path: Path) -> None:
    one, two = (tmp_path / "one", tmp_path / "two")
    write_sounds(one, 8)
    write_sounds(two, 6)
    write_sound(two / "more.wav", 9)
    (two / "notes.txt").write_text("not audio")
    pairs = pair_files(one, two, allow_partial=True)
    assert (pairs.names, pairs.missing, pairs.extra) == (numbered(*range(6)), numbered(6, 7), ["more"])
    texts = {name: "rain" for name in numbered(*range(1, 8))}
    pairs = pair_files(one, two, texts, allow_partial=True)
    assert (pairs.names, pairs.missing, pairs.extra) == (numbered(*range(1, 6)), numbered(0, 6, 7), ["000", "more"])
    assert pairs.coverage == 5 / 8
    with pytest.raises(ValueError, match=r"captions table lacks 1 of the clips to score \(000\)"):
        pair_files(one, one, texts)


def test_flac_references_have_wav_partners(tmp_path: Path) -> None:
    write_sounds(tmp_path / "one", 3)
    write_sounds(tmp_path / "two", 3)
    for path in list((tmp_path / "one").iterdir()):
        write_sound(path.with_suffix(".flac"), 0)
        path.unlink()
    (tmp_path / "two" / "001.wav").rename(tmp_path / "two" / "001.WAV")
    pairs = pair_files(tmp_path / "one", tmp_path / "two")
    assert [path.name for path in pairs.reference.values()] == ["000.flac", "001.flac", "002.flac"]
    assert [path.name for path in pairs.generated.values()] == ["000.wav", "001.WAV", "002.wav"]


def test_a_name_in_other_letters_is_pointed_out(tmp_path: Path) -> None:
    write_sounds(tmp_path / "one", 3)
    write_sounds(tmp_path / "two", 3)
    (tmp_path / "one" / "000.wav").rename(tmp_path / "one" / "Rain.wav")
    (tmp_path / "two" / "000.wav").rename(tmp_path / "two" / "rain.wav")
    with pytest.raises(ValueError, match=r"two lacks 1 .*\(Rain; Rain is called rain there\)"):
        pair_files(tmp_path / "one", tmp_path / "two")


def test_names_that_do_not_meet_are_no_pairs_even_partially(tmp_path: Path) -> None:
    write_sounds(tmp_path / "one", 3)
    write_sounds(tmp_path / "two", 3)
    for path in list((tmp_path / "two").iterdir()):
        path.rename(path.with_name(f"x{path.name}"))
    with pytest.raises(ValueError, match="0 files have a partner"):
        pair_files(tmp_path / "one", tmp_path / "two", allow_partial=True)


def test_unusable_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        audio_files(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds 0 WAV or FLAC files"):
        audio_files(tmp_path)
    (tmp_path / "b.mp3").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds 0 WAV or FLAC files; .*; convert its \.mp3 files to WAV or FLAC"):
        audio_files(tmp_path)
    write_sound(tmp_path / "a.wav", 0)
    (tmp_path / "sub.wav").mkdir()
    (tmp_path / ".hidden.wav").write_bytes(b"")
    with pytest.raises(ValueError, match="holds 1 WAV or FLAC files; expected a folder of at least 2"):
        audio_files(tmp_path)


def test_two_files_or_captions_of_one_name_are_refused(tmp_path: Path) -> None:
    write_sounds(tmp_path, 3)
    write_sound(tmp_path / "001.flac", 1)
    with pytest.raises(ValueError, match="holds two files of the name 001, but for the suffix"):
        audio_files(tmp_path)
    with pytest.raises(ValueError, match="the captions name two files a, but for the suffix"):
        captions_by_clip({"a.wav": "rain", "b.wav": "wind", "a.flac": "hail"})
