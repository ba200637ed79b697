"""Captions by file name: from CSV and JSON, one of several chosen by seed and name alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_modules.captions.by_file import captions_by_name


def table(folder: Path, content: Any, name: str = "captions.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_csv_and_json_say_the_same(tmp_path: Path) -> None:
    csv = table(tmp_path, 'file,caption,split\nclips/a.wav,"rain, then wind",test\nb.wav,a dog,val\n', "captions.csv")
    expected = {"a.wav": "rain, then wind", "b.wav": "a dog"}
    assert captions_by_name(csv, tmp_path) == expected
    for content in (
        {"clips/a.wav": "rain, then wind", "b.wav": ["a dog"]},
        {"a.wav": " rain, then wind ", "b.wav": "a dog"},
    ):
        assert captions_by_name(table(tmp_path, content), tmp_path) == expected


def test_the_choice_is_a_function_of_seed_and_name(tmp_path: Path) -> None:
    several = {f"{i:02d}.wav": [f"{i} caption {j}" for j in range(5)] for i in range(40)}
    first = captions_by_name(table(tmp_path, several), tmp_path, seed=3)
    assert all(first[file] in choices for file, choices in several.items())
    assert {caption[-1] for caption in first.values()} == set("01234")
    fewer = {f"there/{file}": several[file] for file in sorted(several, reverse=True)[:10]}  # other order and folder
    assert captions_by_name(table(tmp_path, fewer), tmp_path, seed=3) == {k: v for k, v in first.items() if k >= "30"}
    other = captions_by_name(table(tmp_path, several), tmp_path, seed=4)
    assert 0 < sum(other[file] != first[file] for file in several) < 40


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a/x.wav": "rain", "b/x.wav": "wind"}, r"captions\.json, b/x\.wav: a second file named x\.wav"),
        ({"x.wav": []}, r"x\.wav: expected a caption or a list of captions, none empty, got \[\]"),
        ({"x.wav": ["rain", "  "]}, "none empty, got"),
        ({"x.wav": 3}, "got 3"),
        ({"x.wav": {"caption": "rain"}}, "expected a caption or a list"),
        (["rain"], r"got list; expected JSON \{file: caption\}"),
        ("{", "not JSON"),
        ({}, r"captions\.json: holds no captions"),
    ],
)
def test_what_is_wrong_with_a_json_table(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        captions_by_name(table(tmp_path, content), tmp_path)


def test_a_missing_table_and_one_that_is_not_text(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.json: no such file; expected JSON"):
        captions_by_name(tmp_path / "nowhere.json", tmp_path)
    (tmp_path / "latin.json").write_bytes('{"a.wav": "Geräusch"}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.json: not UTF-8"):
        captions_by_name(tmp_path / "latin.json", tmp_path)


def test_a_file_named_twice_in_json_is_refused(tmp_path: Path) -> None:
    """Python's reader would keep the last caption silently."""
    with pytest.raises(ValueError, match=r"captions\.json: names a\.wav twice"):
        captions_by_name(table(tmp_path, '{"a.wav": "rain", "a.wav": "wind"}'), tmp_path)


def test_two_files_of_one_name_in_a_csv(tmp_path: Path) -> None:
    csv = table(tmp_path, "file,caption\na/x.wav,rain\nb/x.wav,wind\n", "captions.csv")
    with pytest.raises(ValueError, match=r"captions\.csv, line 3: a second file named x\.wav"):
        captions_by_name(csv, tmp_path)
