"""Public corpora's own tables against folders as they are found in the field; several corpora in one store."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from data_modules.captions.published import read_table
from data_modules.captions.rows import CaptionRow
from data_modules.corpora.base import ClipSize
from data_modules.corpora.captioned_folder import CaptionedFolder
from data_modules.corpora.mixture import Corpora, Corpus, read_corpora
from data_modules.preparation.findings import UnusableClipsError
from data_modules.preparation.prepare import prepare_store
from data_modules.store.store import Store
from mntp.audio.log_mel import normalise
from tests.data_modules.folders import RATE, SECONDS, EnergyTokenizer, LetterText, write_clips, write_sound

AUDIOCAPS = "audiocap_id,youtube_id,start_time,caption\n"


def touch(folder: Path, *files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for file in files:
        (folder / file).touch()
    return folder


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    "file",
    [
        "Yabc-_1.wav",
        "abc-_1.flac",
        "abc-_1_30.wav",
        "abc-_1_30_40.mp3",
        "abc-_1_30000_40000.ogg",
        "Yabc-_1_30.wav",
        "7.wav",
    ],
)
def test_audiocaps_files_are_found_by_every_usual_name(tmp_path: Path, file: str) -> None:
    audio = touch(tmp_path / "audio", file, "other.wav", "notes.txt")
    table = write(tmp_path / "test.csv", AUDIOCAPS + '7,abc-_1,30,"A dog barks, then rain"\n')
    assert read_table(table, audio) == [CaptionRow(file, "A dog barks, then rain", "test", 2)]
    assert read_table(table, audio, "train")[0].split == "train"


def test_five_captions_of_a_clip_are_five_rows(tmp_path: Path) -> None:
    audio = touch(tmp_path / "audio", "Yabc.wav")
    table = write(tmp_path / "val.csv", AUDIOCAPS + "".join(f"{n},abc,30,caption number {n}\n" for n in range(5)))
    source = CaptionedFolder(table, audio)
    assert [row.caption for row in source.rows] == [f"caption number {n}" for n in range(5)]
    assert [row.id for row in source.rows] == ["Yabc", "Yabc-c1", "Yabc-c2", "Yabc-c3", "Yabc-c4"]


def test_a_missing_audiocaps_file_is_a_row_and_goes_by_its_usual_name(tmp_path: Path) -> None:
    audio = touch(tmp_path / "audio", "Yabc.wav")
    table = write(tmp_path / "train.csv", AUDIOCAPS + "1,abc,30,rain\n2,xyz,0,hail\n")
    assert [row.file for row in read_table(table, audio)] == ["Yabc.wav", "Yxyz.wav"]


def test_wavcaps_entries_find_their_flac_files(tmp_path: Path) -> None:
    audio = touch(tmp_path / "audio", "Yabc.flac", "180913.flac", "NHU05104162.flac")
    entries = [
        {"id": "Yabc.wav", "caption": "Rain falls.", "duration": 10.0, "audio": "wav_path"},
        {"id": "180913", "caption": "A dog barks.", "duration": 2.1, "href": "/people/x"},
        {"id": "NHU05104162", "caption": "Birds sing.", "duration": 99.5},
        {"id": 77, "caption": "Nothing is there.", "duration": 1},
    ]
    table = write(tmp_path / "fsd_final.json", {"num_captions_per_audio": 1, "data": entries})
    rows = read_table(table, audio)
    assert [row.file for row in rows] == ["Yabc.flac", "180913.flac", "NHU05104162.flac", "77.flac"]
    assert {row.split for row in rows} == {"train"}
    assert {row.split for row in read_table(table, audio, "val")} == {"val"}


def test_a_black_list_leaves_rows_out_and_counts_them(tmp_path: Path) -> None:
    audio = touch(tmp_path / "audio", "Yabc.flac", "2.flac", "3.flac")
    data = [{"id": id, "caption": "rain", "duration": 1} for id in ("Yabc.wav", "2", "3")]
    table = write(tmp_path / "as.json", {"data": data})
    black = write(tmp_path / "black.json", {"AudioSet": ["Yabc.wav"], "FreeSound": ["3", "9"]})
    source = CaptionedFolder(table, audio, exclude=black)
    assert ([row.file for row in source.rows], source.num_excluded) == (["2.flac"], 2)
    with pytest.raises(ValueError, match=r"black\.json names each of its rows"):
        CaptionedFolder(table, audio, exclude=write(tmp_path / "black.json", ["Yabc.wav", "2", "3"]))
    with pytest.raises(ValueError, match="expected a JSON list of ids"):
        CaptionedFolder(table, audio, exclude=write(tmp_path / "black.json", {"a": "b"}))


def test_jsonl_and_a_list_of_captions(tmp_path: Path) -> None:
    audio = touch(tmp_path / "audio", "a.wav")
    lines = (
        '{"file": "a.wav", "caption": "größe", "split": "val", "more": [1]}\n\n{"file": "b.wav", "caption": "hail"}\n'
    )
    rows = read_table(write(tmp_path / "table.jsonl", lines), audio)
    assert rows == [CaptionRow("a.wav", "größe", "val", 1), CaptionRow("b.wav", "hail", "train", 3)]
    rows = read_table(write(tmp_path / "test.json", {"a.wav": "rain", "b.wav": "hail"}), audio, "test")
    assert rows == [CaptionRow("a.wav", "rain", "test", 1), CaptionRow("b.wav", "hail", "test", 2)]
    rows = read_table(write(tmp_path / "test.json", {"b.wav": ["hail", " ice "], "a.wav": "rain"}), audio, "test")
    assert [(row.file, row.caption, row.line) for row in rows] == [
        ("b.wav", "hail", 1),
        ("b.wav", "ice", 1),
        ("a.wav", "rain", 2),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("my.csv", AUDIOCAPS + "1,abc,30,rain\n", "my.csv: which split .* is not in the table; name it train.csv"),
        ("train.csv", "audiocap_id,youtube_id,caption\n1,abc,rain\n", "line 1: no column start_time"),
        ("train.csv", AUDIOCAPS + "1,abc,soon,rain\n", "line 2: .*start_time 'soon'; expected .* whole number"),
        ("train.csv", AUDIOCAPS + "1,abc,30, ?\n", "line 2: the caption '.' .* has no words"),
        ("train.csv", AUDIOCAPS + "1,two,30,rain\n", "line 2: both Ytwo.wav and two.flac lie in .*; remove one"),
        ("train.csv", AUDIOCAPS + "1,no,30,rain\n", r"none of its 1 files lies in .*looked for: Yno\|no\|no_30"),
        ("a.json", "[1]", "a.json: got list; expected"),
        ("a.json", "{", "a.json, line 1: not JSON"),
        ("a.json", '{"data": [{"caption": "rain"}]}', "a.json, entry 1: no id or no text"),
        ("a.json", '{"data": [{"id": "1", "caption": "rain"}]}', r"none of its 1 files .*: 1\.\*; give the folder"),
        ("a.json", '{"a.wav": "rain", "a.wav": "hail"}', "a.json: names a.wav twice"),
        ("a.json", '{"a.wav": [""]}', "a.json, a.wav: expected a caption or a list of captions, none empty"),
        ("a.json", '{"../a.wav": "rain"}', "a.json, entry 1: file '../a.wav' leaves the audio folder"),
        ("a.jsonl", '{"file": "a.wav"}\n', "a.jsonl, line 1: no text under caption"),
        ("a.jsonl", '{"file": 1, "caption": "rain"}\n', "a.jsonl, line 1: no text under file"),
        ("a.jsonl", '\n["a.wav"]\n', "a.jsonl, line 2: got list; expected one object"),
        ("a.jsonl", "{\n", "a.jsonl, line 1: not JSON"),
        ("a.jsonl", "", "the table has no rows"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_in_one_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    audio = touch(tmp_path / "audio", "Ytwo.wav", "two.flac", "Yabc.wav")
    with pytest.raises(ValueError, match=message) as error:
        read_table(write(tmp_path / name, content), audio)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
@pytest.mark.parametrize(
    ("suffix", "subtype"), [("wav", "PCM_24"), ("flac", "PCM_16"), ("ogg", "VORBIS"), ("mp3", None)]
)
def test_any_rate_and_format_in_stereo_is_heard_alike(
    tmp_path: Path, rate: int, suffix: str, subtype: str | None
) -> None:
    time = np.arange(round(0.32 * rate)) / rate
    tone = 0.4 * np.sin(2 * np.pi * 440 * time) * np.sin(np.pi * time / 0.32)
    soundfile.write(tmp_path / f"a.{suffix}", np.stack([tone, 0 * tone], 1), rate, subtype=subtype)
    write(tmp_path / "captions.csv", f"file,caption,split\na.{suffix},a tone,test\n")
    source = CaptionedFolder(tmp_path / "captions.csv", tmp_path)
    window = source.read(source.rows[0], ClipSize(5120, 16_000, 5120)).kept[0]
    sixteen = np.arange(5120) / 16_000
    expected = normalise(torch.from_numpy(np.sin(2 * np.pi * 440 * sixteen) * np.sin(np.pi * sixteen / 0.32))).float()
    inside = slice(800, 4000)  # lossy coders smear the ends
    assert window.clip.seconds == pytest.approx(0.32, abs=0.08)  # MP3 frames
    error = (window.waveform - expected)[inside].abs().max()
    assert error < (0.05 if suffix in ("ogg", "mp3") else 0.003)


def two_corpora(folder: Path) -> dict[str, Corpus]:
    write_clips(folder / "one", train=5, val=2, test=1)
    write_clips(folder / "two", train=3, val=1, test=1)
    for place, path in enumerate(sorted((folder / "two").glob("*.wav"))):
        write_sound(path, SECONDS * (1 + place % 3), seed=100 + place)
    return {
        "one": Corpus(folder / "one" / "captions.csv", folder / "one", weight=2.0),
        "two": Corpus(folder / "two" / "captions.csv", folder / "two", "random"),
    }


def prepare(source: Corpora | CaptionedFolder, out: Path, allow_missing: bool = False) -> Store:
    return prepare_store(source, EnergyTokenizer(), LetterText(), out, SECONDS, allow_missing)


def test_corpora_lie_one_after_the_other_with_their_names_and_weights(tmp_path: Path) -> None:
    corpora = two_corpora(tmp_path)
    store = prepare(Corpora(corpora), tmp_path / "store")
    assert store.clips[0].id == "one__train0"
    assert store.clips[0].file == "one/train0.wav"
    assert [clip.file.partition("/")[0] for clip in store.clips] == ["one"] * 8 + ["two"] * (len(store.clips) - 8)
    assert {clip.id for clip in store.clips if clip.split == "val"} == {"one__val0", "one__val1", "two__val0"}
    assert any(clip.id == "two__train1-w001" for clip in store.clips)
    assert store.index["reading"]["corpora"] == [
        {"name": "one", "weight": 2.0, "one_window": False, "clips": 8},
        {"name": "two", "weight": 1.0, "one_window": True, "clips": len(store.clips) - 8},
    ]
    assert store.index["coverage"]["corpora"] == {"one": {"rows": 8, "stored": 8}, "two": {"rows": 5, "stored": 5}}
    alone = prepare(CaptionedFolder(corpora["one"].captions, corpora["one"].audio), tmp_path / "alone")
    assert [clip.caption for clip in store.clips[:8]] == [clip.caption for clip in alone.clips]
    heavier = prepare(
        Corpora({**corpora, "one": Corpus(*list(vars(corpora["one"]).values())[:5], 3.0)}), tmp_path / "h"
    )
    assert heavier.fingerprint != store.fingerprint  # another training


def test_losses_are_named_with_their_corpus_and_counted_by_split(tmp_path: Path) -> None:
    corpora = two_corpora(tmp_path)
    (tmp_path / "one" / "test0.wav").unlink()
    (tmp_path / "two" / "train0.wav").write_bytes((tmp_path / "one" / "val0.wav").read_bytes())
    with pytest.raises(UnusableClipsError, match=r"2 of 13 .*first: one/test0\.wav: missing"):
        prepare(Corpora(corpora), tmp_path / "store")
    store = prepare(Corpora(corpora), tmp_path / "store", allow_missing=True)
    coverage = json.loads((store.path / "coverage.json").read_text())
    assert coverage == store.index["coverage"]
    assert coverage["problems"] == [
        {"file": "one/test0.wav", "reason": "missing"},
        {"file": "two/train0.wav", "reason": "duplicate"},
    ]
    assert str(store.coverage("test")) == "1 of 2"
    assert store.coverage("test").share == 0.5
    assert str(store.coverage("val")) == "3 of 3"
    assert str(store.coverage()) == "11 of 13"


def duplicate(folder: Path, source: str, target: str) -> None:
    (folder / target).write_bytes((folder / source).read_bytes())


@pytest.mark.parametrize(
    ("rows", "lost"),
    [
        (["a.wav,rain,train", "a.wav,rain,train"], ["a.wav"]),  # the same row twice
        (["a.wav,rain,train", "a.wav,hail,train"], []),  # a second caption
        (["a.wav,rain,train", "b.wav,hail,train"], ["b.wav"]),  # one sound under two names
        (["a.wav,rain,train", "b.wav,hail,test"], ["a.wav"]),  # of which the one in the test split stays
        (["a.wav,rain,train", "b.wav,hail,val", "b.wav,snow,test"], ["a.wav", "b.wav"]),
        (["a.wav,rain,train", "c.flac,rain,train"], ["c.flac"]),  # in another format
        (["a.wav,rain,train", "d.wav,rain,train"], []),
    ],
)
def test_duplicates(tmp_path: Path, rows: list[str], lost: list[str]) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.3, 0.3, 5120), RATE)
    duplicate(tmp_path, "a.wav", "b.wav")
    samples, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    soundfile.write(tmp_path / "c.flac", samples, RATE)
    soundfile.write(tmp_path / "d.wav", samples + 1, RATE)
    write_sound(tmp_path / "other.wav", 0.32, seed=5)
    write(tmp_path / "captions.csv", "\n".join(["file,caption,split", *rows, "other.wav,another,train"]) + "\n")
    store = prepare(CaptionedFolder(tmp_path / "captions.csv", tmp_path), tmp_path / "store", allow_missing=True)
    assert [problem["file"] for problem in store.index["coverage"]["problems"]] == lost
    assert len(store.clips) == len(rows) + 1 - len(lost)
    assert len({clip.id for clip in store.clips}) == len(store.clips)


def test_random_windows_of_one_folder(tmp_path: Path) -> None:
    write_clips(tmp_path, train=2, val=1, test=1)
    write_sound(tmp_path / "train0.wav", 4 * SECONDS, seed=9)
    write_sound(tmp_path / "test0.wav", 4 * SECONDS, seed=10)
    store = prepare(CaptionedFolder(tmp_path / "captions.csv", tmp_path, "random"), tmp_path / "store")
    assert [clip.split for clip in store.clips] == ["train"] * 5 + ["val", "test"]
    assert store.index["reading"]["corpora"][0]["one_window"]


def test_a_try_out_takes_rows_from_all_over(tmp_path: Path) -> None:
    source = Corpora(two_corpora(tmp_path))
    source.limit(4)
    assert [row.id for row in source.rows] == ["one__train0", "one__train3", "one__val1", "two__train1"]
    assert prepare(source, tmp_path / "store").index["coverage"]["rows"] == 4
    with pytest.raises(ValueError, match="limit is 0"):
        source.limit(0)


def test_a_list_of_corpora_is_read_relative_to_itself(tmp_path: Path) -> None:
    text = "a: {captions: x/train.csv, audio: x, weight: 0.5, split: train, windows: all, exclude: b.json}\n"
    assert read_corpora(write(tmp_path / "list.yaml", text)) == {
        "a": Corpus(tmp_path / "x/train.csv", tmp_path / "x", "all", "train", tmp_path / "b.json", 0.5)
    }
    path = write(tmp_path / "two.yaml", text + "b: {captions: y.csv, audio: y}\n")
    assert [corpus.windows for corpus in read_corpora(path, "random").values()] == ["all", "random"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected .*one entry name"),
        ("- a", "expected .*one entry name"),
        ("a: [", "not valid YAML"),
        ("a: {captions: x}", "corpus a: expected a mapping with captions and audio"),
        ("a: {captions: x, audio: y, wieght: 2}", "unknown key 'wieght'; did you mean 'weight'"),
        ("a: {captions: x, audio: y, weight: heavy}", "weight is 'heavy'; expected a number"),
        ("a: {captions: x, audio: 3}", "audio is 3; expected text"),
    ],
)
def test_a_wrong_list_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"list\.yaml.*{message}"):
        read_corpora(write(tmp_path / "list.yaml", text))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda corpora: corpora.update({"a b": corpora["one"]}), "corpus 'a b': expected a name of letters"),
        (
            lambda corpora: corpora.update(one=Corpus(corpora["one"].captions, corpora["one"].audio, weight=0)),
            "above 0",
        ),
        (
            lambda corpora: corpora.update(one=Corpus(corpora["one"].captions, corpora["one"].audio, split="dev")),
            "'dev'",
        ),
    ],
)
def test_corpora_out_of_range(tmp_path: Path, change: Callable[[dict[str, Corpus]], None], message: str) -> None:
    corpora = two_corpora(tmp_path)
    change(corpora)
    with pytest.raises(ValueError, match=message):
        Corpora(corpora)
