from collections import Counter
from pathlib import Path

import pytest

from data_modules.captions.rows import CaptionRow, read_captions, split_by_hash


def table(folder: Path, content: str | bytes) -> Path:
    path = folder / "captions.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_reads_rows_with_any_extra_columns_and_quotes(tmp_path: Path, prefix: bytes) -> None:
    text = 'licence,caption,file,split\nCC0,"a siren, then größe",sub/a.wav,val\n\nCC0,雨の音,b.flac,train\n'
    rows = read_captions(table(tmp_path, prefix + text.encode()), tmp_path)
    assert rows == [
        CaptionRow("sub/a.wav", "a siren, then größe", "val", 2),
        CaptionRow("b.flac", "雨の音", "train", 4),
    ]


def test_without_a_split_column_the_name_decides(tmp_path: Path) -> None:
    files = [f"{number}.wav" for number in range(2000)]
    forward = table(tmp_path, "file,caption\n" + "".join(f"{file},rain\n" for file in files))
    splits = {row.file: row.split for row in read_captions(forward, tmp_path)}
    backward = table(tmp_path, "file,caption\n" + "".join(f"{file},hail\n" for file in reversed(files)))
    assert splits == {row.file: row.split for row in read_captions(backward, tmp_path)}
    count = Counter(splits.values())
    assert count["train"] == pytest.approx(1800, abs=45)
    assert count["val"] == pytest.approx(100, abs=30)
    assert count["test"] == pytest.approx(100, abs=30)
    # Frozen: a change would move clips of prepared sets between splits.
    assert [split_by_hash(file) for file in ("2.wav", "1.wav", "0.wav")] == ["train", "val", "test"]


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ("", "", "the table is empty"),
        ("file,caption,split\n", "", "the table has no rows"),
        ("name,caption\na.wav,rain\n", ", line 1", "no column file"),
        ("file,text\na.wav,rain\n", ", line 1", "no column caption"),
        ("file,caption,caption\na.wav,rain,hail\n", ", line 1", "'caption' comes twice"),
        ("file,caption\na.wav,rain\nb.wav,hail, then rain\n", ", line 3", "3 fields, but the header has 2"),
        ("file,caption,split\na.wav,rain\n", ", line 2", "2 fields, but the header has 3"),
        ('file,caption\na.wav,"rain\n', ", line 2", "expected CSV"),
        ("file,caption,split\na.wav,rain,dev\n", ", line 2", "unknown split 'dev'; expected one of train, val"),
        ("file,caption\na.wav,rain\na.wav,hail\n", ", line 3", "'a.wav' was named in line 2 already"),
        ("file,caption\na.wav,\n", ", line 2", "'' of 'a.wav' has no words"),
        ("file,caption\na.wav, ... !\n", ", line 2", "'... !' of 'a.wav' has no words"),
        ("file,caption\n,rain\n", ", line 2", "'' is no file name"),
        ("file,caption\na\0.wav,rain\n", ", line 2", "is no file name"),
        ("file,caption\n/etc/passwd,rain\n", ", line 2", "'/etc/passwd' leaves the audio folder"),
        ("file,caption\nsub/../../a.wav,rain\n", ", line 2", "'sub/../../a.wav' leaves the audio folder"),
        ("file,caption\nlink/a.wav,rain\n", ", line 2", "'link/a.wav' leaves the audio folder"),
        ("file,caption\na.wav,größe\n".encode("latin-1"), "", "not UTF-8"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path: Path, content: str | bytes, line: str, message: str) -> None:
    audio = tmp_path / "audio"
    audio.mkdir()
    (audio / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match=r"captions\.csv") as error:
        read_captions(table(tmp_path, content), audio)
    assert str(error.value).startswith(f"{tmp_path / 'captions.csv'}{line}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_links_inside_the_folder_are_followed(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "b.wav").symlink_to(tmp_path / "a.wav")
    assert read_captions(table(tmp_path, "file,caption\nb.wav,rain\n"), tmp_path)[0].file == "b.wav"


def test_missing_table_and_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.csv: no such file"):
        read_captions(tmp_path / "none.csv", tmp_path)
    with pytest.raises(ValueError, match="none: no such folder"):
        read_captions(table(tmp_path, "file,caption\na.wav,rain\n"), tmp_path / "none")
