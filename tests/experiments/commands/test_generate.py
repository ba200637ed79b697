"""`mntp generate` and `mntp export` as a user meets them: batches, going on, refusals, whole files whatever happens."""

import csv
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from torch import Tensor

import experiments.commands.generate
from experiments.commands.generate import export, generate
from experiments.config.errors import user_errors
from experiments.main import COMMANDS, call, usage
from mntp.audio.files import read_audio, write_audio
from mntp.inference.text_to_audio import TextToAudio
from tests.disks import disk_of
from tests.models import CLIP_SAMPLES, noises, tiny_model

SIXTEEN_BITS = 2 / 2**15  # what is left of a difference below the last bit of a file: one step, rounded both ways


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "model"
    tiny_model().save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def mntp(line: str) -> None:
    """What the console script does with a line, but for the exit."""
    name, *words = shlex.split(line)
    assert COMMANDS[name][:2] == ("experiments.commands.generate", name)
    with user_errors():
        call({"generate": generate, "export": export}[name], name, words)


def error_of(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        mntp(line)
    assert caught.value.code == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith("error: ")
    return message


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open() as file:
        return list(csv.DictReader(file))


def assert_alike(one: Tensor, other: Tensor) -> None:
    """Equal but for what the last bits of tokens become in 16 bits and after Griffin-Lim."""
    assert (one - other).norm() < 0.02 * other.norm()


def prompts(folder: Path, text: str, name: str = "prompts.txt") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_captions_on_the_line(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mntp(f"generate 'a dog barks' 'rain!' 'rain!' --ckpt {model} --out {tmp_path / 'g'} --seed 3")
    names = ["000-a_dog_barks.wav", "001-rain.wav", "002-rain.wav"]
    assert capsys.readouterr().out.split() == [str(tmp_path / "g" / name) for name in names]
    assert sorted(contents(tmp_path / "g")) == [*names, "clips.csv", "generation.json"]
    rows = rows_of(tmp_path / "g" / "clips.csv")
    assert [(row["file"], row["caption"]) for row in rows] == [
        (names[0], "a dog barks"),
        (names[1], "rain!"),
        (names[2], "rain!"),
    ]
    # what clips.csv says is enough to make a clip again, alone
    loaded = TextToAudio.from_pretrained(model, "cpu")
    for row in rows:
        sound = read_audio(tmp_path / "g" / row["file"])
        (alone,) = loaded.generate([row["caption"]], seed=int(row["seed"]))
        assert_alike(sound, alone.clamp(-1, 1))
    assert contents(tmp_path / "g")[names[1]] != contents(tmp_path / "g")[names[2]]


def test_a_file_of_prompts_in_batches(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["rain", "wind", "a bell, far away", "rain", "bells"]
    lines = prompts(tmp_path, "rain\nwind\n\n  \na bell, far away\nrain\nbells\n")
    mntp(f"generate --prompts {lines} --ckpt {model} --out {tmp_path / 'a'} --batch_size 2 --seconds 0.32")
    assert "5 captions; empty lines left out: 2" in capsys.readouterr().err
    rows = rows_of(tmp_path / "a" / "clips.csv")
    assert [row["caption"] for row in rows] == texts
    assert {soundfile.info(tmp_path / "a" / row["file"]).frames for row in rows} == {5120}
    table = prompts(tmp_path, 'id,caption\n1,rain\n2,wind\n3,"a bell, far away"\n4,rain\n5,bells\n', "prompts.csv")
    mntp(f"generate --prompts {table} --ckpt {model} --out {tmp_path / 'b'} --batch-size 5 --seconds 0.32")
    assert [row["file"] for row in rows_of(tmp_path / "b" / "clips.csv")] == [f"{number}.wav" for number in range(1, 6)]
    for number, row in enumerate(rows, start=1):  # in other batches the same, up to the last bits
        assert_alike(read_audio(tmp_path / "a" / row["file"]), read_audio(tmp_path / "b" / f"{number}.wav"))


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        ("a.csv", "file,caption\naudio/x 1.flac,rain\ny.v2.wav,wind\n", ["x 1.wav", "y.v2.wav"]),
        ("a.csv", "id,caption,file\n7,rain,x.wav\n8,wind,y.wav\n9, ,z.wav\n", ["x.wav", "y.wav"]),
        ("a.csv", "caption\nrain\nwind\n", ["000-rain.wav", "001-wind.wav"]),
        ("a.json", '{"x.wav": "rain", "y.flac": ["wind"]}', ["x.wav", "y.wav"]),
    ],
)
def test_a_table_names_the_files(model: Path, tmp_path: Path, name: str, text: str, names: list[str]) -> None:
    """As `mntp evaluate` pairs them: without folders, whatever the suffix."""
    mntp(f"generate --prompts {prompts(tmp_path, text, name)} --ckpt {model} --out {tmp_path / 'g'} --seconds 0.16")
    rows = rows_of(tmp_path / "g" / "clips.csv")
    assert [(row["file"], row["caption"]) for row in rows] == list(zip(names, ("rain", "wind"), strict=True))
    assert sorted(path.name for path in (tmp_path / "g").glob("*.wav")) == names


def test_an_interrupted_run_goes_on_to_the_same_files(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"generate a b c d e f g --ckpt {model} --batch_size 3 --out {tmp_path}"
    mntp(f"{line}/whole")
    written: list[str] = []

    def write(path: Path, *rest: Any) -> None:
        if len(written) == 4:  # in the middle of the second batch
            raise KeyboardInterrupt
        written.append(path.name)
        write_audio(path, *rest)

    capsys.readouterr()
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as caught:
        patch.setattr(experiments.commands.generate, "write_audio", write)
        mntp(f"{line}/cut")
    assert caught.value.code == 130
    assert "run the same command again to go on" in capsys.readouterr().err
    whole, cut = contents(tmp_path / "whole"), contents(tmp_path / "cut")
    assert sorted(cut) == sorted([*written, "clips.csv", "generation.json"])
    assert cut == {name: whole[name] for name in cut}
    kept = {name: (tmp_path / "cut" / name).stat().st_mtime_ns for name in written}
    mntp(f"{line}/cut")
    captured = capsys.readouterr()
    assert "4 of 7 sounds are there already" in captured.err
    assert len(captured.out.split()) == 7
    assert contents(tmp_path / "cut") == whole
    assert {name: (tmp_path / "cut" / name).stat().st_mtime_ns for name in written} == kept

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing is left to be drawn")

    monkeypatch.setattr(TextToAudio, "generate", refuse)
    mntp(f"{line}/whole")
    assert contents(tmp_path / "whole") == whole


def test_sounds_made_in_another_way_are_refused_with_what_differs(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "g"
    line = f"generate rain wind --ckpt {model} --out {out}"
    mntp(line)
    before = contents(out)
    other = tmp_path / "other"
    tiny_model(seed=1).save_pretrained(other)
    for change, message in (
        ("--seed 1", "seed: 0 there, 1 now"),
        ("--num_steps 2", "decoding.sampling.num_steps: 3 there, 2 now"),
        ("--solver ddim", "decoding.sampling.solver: ancestral there, ddim now"),
        ("--tokens_per_call 2", "decoding.tokens_per_call: 1 there, 2 now"),
        ("--guidance_scale 1.5 --temperature 0.5", "guidance.scale: 2.0 there, 1.5 now"),
        ("--seconds 0.16", "seconds: 0.64 there, 0.16 now"),
        (f"--ckpt {other}", "weights: "),
    ):
        found = error_of(f"{line} {change}", capsys)
        assert f"{out}: holds sounds that were made in another way" in found
        assert message in found
        assert "name another folder with --out" in found
    found = error_of(f"generate 'rain?' --ckpt {model} --out {out}", capsys)  # the same file name
    assert f"{out}/000-rain.wav: is there already, and it is another sound, of 'rain'" in found
    assert contents(out) == before
    (out / "generation.json").unlink()
    assert "000-rain.wav: is there already, and nothing says how it was made" in error_of(line, capsys)
    mntp(f"generate snow --ckpt {model} --out {out}")  # in nobody's way
    assert contents(out)["001-wind.wav"] == before["001-wind.wav"]


def test_more_captions_into_the_same_folder(model: Path, tmp_path: Path) -> None:
    mntp(f"generate rain --ckpt {model} --out {tmp_path / 'g'}")
    mntp(f"generate wind rain --ckpt {model} --out {tmp_path / 'g'}")
    rows = rows_of(tmp_path / "g" / "clips.csv")
    assert [row["file"] for row in rows] == ["000-rain.wav", "000-wind.wav", "001-rain.wav"]
    content = contents(tmp_path / "g")
    first, second = (read_audio(tmp_path / "g" / name) for name in ("000-rain.wav", "001-rain.wav"))
    assert_alike(first, second)
    assert json.loads(content["generation.json"])["seed"] == 0


def test_ten_thousand_prompts(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are unique and sort as the prompts do, and no more than a batch is ever held."""
    lines = prompts(tmp_path, "".join(f"sound {'a' * 70} {number % 7}\n" for number in range(10_000)))
    sizes, names = [], list[str]()

    def made(_: TextToAudio, captions: list[str], *rest: Any) -> list[Tensor]:
        sizes.append(len(captions))
        return [torch.zeros(160)] * len(captions)

    monkeypatch.setattr(TextToAudio, "generate", made)
    monkeypatch.setattr(experiments.commands.generate, "write_audio", lambda path, *_: names.append(path.name))
    mntp(f"generate --prompts {lines} --ckpt {model} --out {tmp_path / 'g'} --batch_size 64")
    assert len(set(names)) == 10_000
    assert names == sorted(names)
    assert (max(sizes), sum(sizes)) == (64, 10_000)
    assert len({row["seed"] for row in rows_of(tmp_path / "g" / "clips.csv")}) == -(-10_000 // 7)


def test_mistakes_are_one_line_and_write_nothing(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_audio(tmp_path / "short.wav", noises(1)[0, :1000])
    (tmp_path / "latin.txt").write_bytes("bruit d'été".encode("latin-1"))
    text = prompts(tmp_path, "rain\n?!\n")
    empty, spaces = prompts(tmp_path, "", "empty.txt"), prompts(tmp_path, "\n \n", "spaces.txt")
    table = prompts(tmp_path, "id,text\n1,rain\n", "wrong.csv")
    (tmp_path / "other.ckpt").write_bytes(b"PK nothing")
    torch.save({"state_dict": {}, "hyper_parameters": {"width": 3}}, tmp_path / "other2.ckpt")
    twice = prompts(tmp_path, "file,caption\na/x.wav,rain\nb/x.flac,wind\n", "twice.csv")
    unnamed = prompts(tmp_path, "file,caption\nx.wav,rain\n,wind\n", "unnamed.csv")
    hidden = prompts(tmp_path, "id,caption\n..,rain\n", "hidden.csv")
    there = contents_of_tree(tmp_path)
    for words, message in (
        ("", "no captions; expected"),
        (f"rain --prompts {text}", "got captions and --prompts"),
        (f"--prompts {text}", "prompts.txt, line 2: the caption '?!' has no words"),
        (f"--prompts {empty}", "empty.txt: holds no captions"),
        (f"--prompts {spaces}", "spaces.txt: holds no captions"),
        (f"--prompts {tmp_path / 'nowhere.txt'}", "nowhere.txt: no such file; expected one caption a line"),
        (f"--prompts {tmp_path / 'latin.txt'}", "latin.txt: not UTF-8"),
        (f"--prompts {table}", "wrong.csv, line 1: no column caption"),
        (f"--prompts {twice}", "twice.csv, line 3: a second file named x (line 2)"),
        (f"--prompts {unnamed}", "unnamed.csv, line 3: file '' can't name a file"),
        (f"--prompts {hidden}", "hidden.csv, line 2: id '..' can't name a file"),
        ("rain --seconds 0.5", "0.5 is no multiple of 0.16, the tokenizer's time slice; nearest are 0.48 and 0.64"),
        ("rain --seconds 10.24", "seconds: got 10.24, expected 0.16 to 0.64"),
        ("rain --batch_size 0", "--batch_size: got 0, expected at least 1"),
        ("rain --num_steps 0", "decoding.sampling.num_steps: expected a number of steps from 1 up, got 0"),
        ("rain --solver ddimm", "did you mean 'ddim'?"),
        (f"rain --continue_from {tmp_path / 'short.wav'}", "continue_from: got 0.0625 s"),
        (f"rain --continue_from {tmp_path / 'none.wav'}", "none.wav: no such audio file"),
        (f"rain --ckpt {tmp_path / 'other.ckpt'}", "other.ckpt: not a checkpoint of a system of this suite"),
        (f"rain --ckpt {tmp_path / 'other2.ckpt'}", "other2.ckpt: not a checkpoint of a system of this suite"),
        (f"rain --ckpt {tmp_path / 'none'}", "none: no such folder"),
    ):
        line = f"generate {words} --out {tmp_path / 'g'} {'' if '--ckpt' in words else f'--ckpt {model}'}"
        assert message in error_of(line, capsys)
    assert contents_of_tree(tmp_path) == there


def contents_of_tree(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_going_on_from_a_file(model: Path, tmp_path: Path) -> None:
    write_audio(tmp_path / "begin.wav", noises(1, 5120)[0])
    mntp(f"generate rain --ckpt {model} --out {tmp_path / 'g'} --continue_from {tmp_path / 'begin.wav'}")
    sound = read_audio(tmp_path / "g" / "000-rain.wav")
    assert sound.shape == (CLIP_SAMPLES,)
    loaded = TextToAudio.from_pretrained(model, "cpu")
    (direct,) = loaded.generate(["rain"], continue_from=read_audio(tmp_path / "begin.wav"))
    torch.testing.assert_close(sound, direct.clamp(-1, 1), atol=SIXTEEN_BITS, rtol=0)


def test_export(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mntp(f"export --ckpt {model} --out {tmp_path / 'm'}")
    assert contents(tmp_path / "m") == contents(model)
    mntp(f"generate rain --ckpt {model} --out {tmp_path / 'g'}")
    mntp(f"generate rain wind --ckpt {tmp_path / 'm'} --out {tmp_path / 'g'}")  # the same weights: it goes on
    assert "holds other files than a model's" in error_of(f"export --ckpt {model} --out {tmp_path / 'g'}", capsys)
    assert "mntp export" in usage()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 80 KB: enough for a few sounds."""
    with disk_of("80k", tmp_path / "disk") as folder:
        yield folder


def test_a_full_disk_names_the_file_and_leaves_whole_ones(
    model: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = error_of(f"generate a b c d e f --ckpt {model} --out {small_disk / 'g'}", capsys)
    assert "No space left on device" in message
    assert str(small_disk / "g") in message
    files = contents(small_disk / "g")
    sounds = [name for name in files if name.endswith(".wav")]
    assert 0 < len(sounds) < 6
    assert not [name for name in files if name.endswith(".tmp")]
    assert {soundfile.info(small_disk / "g" / name).frames for name in sounds} == {CLIP_SAMPLES}
