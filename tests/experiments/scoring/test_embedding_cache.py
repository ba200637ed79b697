"""Each content is embedded once per network, whatever its name; damage and interruption change nothing."""

import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

import mntp.io.code_digest
from experiments.scoring.embedding_cache import UnusableAudioError, digest_files, embed_files
from mntp.metrics.score_sets import Embeddings
from tests.experiments.scoring.toy_network import Ear, write_sound, write_sounds


def embed(network: Ear, paths: list[Path], cache: Path, batch_size: int = 4) -> Embeddings:
    return embed_files(network, paths, digest_files(paths), cache, batch_size)


def same(one: Embeddings, two: Embeddings) -> bool:
    return set(one) == set(two) and all(
        len(one[name]) == len(two[name]) and all(map(torch.equal, one[name], two[name])) for name in one
    )


def alone(path: Path, seed: int = 0) -> dict[str, Tensor]:
    """What a network makes of one file, past all caches."""
    network = Ear(seed)
    return {name: values[0] for name, values in network(network.read(path)[None]).items()}


def test_a_content_is_embedded_once_whatever_its_name_folder_or_date(tmp_path: Path) -> None:
    network, cache = Ear(), tmp_path / "cache"
    paths = write_sounds(tmp_path / "a", 6)
    first = embed(network, paths, cache)
    assert network.num_embedded == 6
    copy = Path(shutil.copytree(tmp_path / "a", tmp_path / "b" / "c"))
    (copy / "000.wav").rename(copy / "renamed.wav")
    os.utime(copy / "001.wav", (1, 1))
    again = embed(network, [copy / "renamed.wav", *(copy / path.name for path in paths[1:])], cache)
    assert network.num_embedded == network.num_read == 6
    assert same(first, again)


def test_changed_content_under_the_same_name_is_embedded_again(tmp_path: Path) -> None:
    """The toolkit's caches are named after folders: there an overwritten file keeps its old score."""
    network, cache = Ear(), tmp_path / "cache"
    paths = write_sounds(tmp_path, 3)
    first = embed(network, paths, cache)
    date = paths[1].stat().st_mtime
    write_sound(paths[1], seed=77)
    os.utime(paths[1], (date, date))
    again = embed(network, paths, cache)
    assert network.num_embedded > 3
    changed = [not torch.allclose(a, b, atol=1e-6) for a, b in zip(first["features"], again["features"], strict=True)]
    assert changed == [False, True, False]
    torch.testing.assert_close(again["features"][1], alone(paths[1])["features"])


def test_another_network_has_its_own(tmp_path: Path) -> None:
    one, two, cache = Ear(0), Ear(1), tmp_path / "cache"
    paths = write_sounds(tmp_path, 3)
    assert one.fingerprint() != two.fingerprint()
    assert not same(embed(one, paths, cache), embed(two, paths, cache))
    assert one.num_embedded == two.num_embedded == 3
    three = Ear(0)
    three.feature_version = "energies, another window"
    embed(three, paths, cache)
    assert three.num_embedded == 3


def test_changed_code_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embeddings of the code of before must not be taken for those of the code of now."""
    paths, cache = write_sounds(tmp_path, 3), tmp_path / "cache"
    embed(Ear(), paths, cache)
    read = mntp.io.code_digest.read_source
    monkeypatch.setattr(mntp.io.code_digest, "read_source", lambda name: read(name).replace("square()", "abs()"))
    changed = Ear()
    embed(changed, paths, cache)
    assert changed.num_embedded == 3


@pytest.mark.parametrize("damage", [lambda data: data[:-5], lambda data: b"", lambda data: b"\xff" * len(data)])
def test_a_damaged_cache_file_is_replaced(tmp_path: Path, damage) -> None:
    cache = tmp_path / "cache"
    paths = write_sounds(tmp_path / "a", 5)
    first = embed(Ear(), paths, cache)
    victim = sorted(cache.rglob("*.safetensors"))[2]
    whole = victim.read_bytes()
    victim.write_bytes(damage(whole))
    assert same(embed(Ear(), paths, cache), first)
    assert victim.read_bytes() == whole
    unused = Ear()
    embed(unused, paths, cache)
    assert unused.num_embedded == 0


def test_what_was_interrupted_ends_with_the_same_bits(tmp_path: Path) -> None:
    paths = write_sounds(tmp_path / "a", 10)
    whole = embed(Ear(), paths, tmp_path / "whole")

    class Killed(Ear):
        def embed(self, waveform: Tensor) -> dict[str, Tensor]:
            if len(self.batches) == 1:
                raise KeyboardInterrupt
            return super().embed(waveform)

        def fingerprint(self) -> str:
            return Ear().fingerprint()

    with pytest.raises(KeyboardInterrupt):
        embed(Killed(), paths, tmp_path / "killed")
    assert len(list((tmp_path / "killed").rglob("*.safetensors"))) == 4
    next((tmp_path / "killed").rglob("*.safetensors")).unlink()  # as if killed within the writing of a batch
    rest = Ear()
    assert same(embed(rest, paths, tmp_path / "killed"), whole)
    assert rest.batches == [4, 4, 2]
    assert not list((tmp_path / "killed").rglob("*.tmp"))


def test_clips_of_other_lengths_and_rates_keep_their_places(tmp_path: Path) -> None:
    """Batches hold clips of one length; each result stands where its file does, and is what it gives alone."""
    shapes = [(4000, 16_000), (8000, 16_000), (4000, 8000), (4000, 16_000), (5000, 44_100), (8000, 16_000)]
    paths = [write_sound(tmp_path / f"{i}.wav", i, *shape) for i, shape in enumerate(shapes)]
    network = Ear()
    found = embed(network, paths[::-1], tmp_path / "cache")
    assert sorted(network.batches) == [1, 1, 2, 2]
    for place, path in enumerate(paths[::-1]):
        expected = alone(path)
        for name in network.outputs:
            torch.testing.assert_close(found[name][place], expected[name])
    assert len({len(patches) for patches in found["patches"]}) > 1


def test_batch_size_matters_to_rounding_at_most(tmp_path: Path) -> None:
    paths = write_sounds(tmp_path, 7)
    found = [embed(Ear(), paths, tmp_path / f"cache{size}", size) for size in (1, 3, 32)]
    for other in found[1:]:
        for name, values in other.items():
            torch.testing.assert_close(torch.stack(values), torch.stack(found[0][name]), rtol=1e-5, atol=1e-6)


def test_the_same_sound_twice_in_a_set_counts_twice(tmp_path: Path) -> None:
    paths = write_sounds(tmp_path, 3)
    found = embed(Ear(), [paths[0], paths[1], paths[0]], tmp_path / "cache")
    torch.testing.assert_close(found["features"][0], found["features"][2])
    assert len(found["features"]) == 3


def test_every_unusable_file_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    paths = write_sounds(tmp_path, 8)
    paths[0].write_text("a text, not a sound")
    soundfile.write(paths[2], np.zeros(0), 16_000)
    soundfile.write(paths[3], np.full(4000, np.nan), 16_000, subtype="FLOAT")
    paths[5].write_bytes(b"RIFF" + b"\0" * 40)
    paths[6].write_bytes(b"")
    with pytest.raises(UnusableAudioError, match="5 of 8 files can't be scored") as error:
        embed(Ear(), paths, cache)
    message = str(error.value)
    assert all(f"{path}: " in message for path in (paths[0], paths[2], paths[3], paths[5], paths[6]))
    assert "not finite" in message and "0 samples" in message and "\n" not in message
    good = [paths[1], paths[4], paths[7]]
    after = Ear()
    embed(after, good, cache)
    assert after.num_embedded == 0


def test_missing_files_are_named_before_anything_is_embedded(tmp_path: Path) -> None:
    paths = write_sounds(tmp_path, 3)
    paths[0].unlink()
    paths[2].unlink()
    with pytest.raises(UnusableAudioError, match=r"2 of 3 .*000\.wav: not readable \(No such file.*002\.wav: not read"):
        digest_files(paths)


def test_more_than_twenty_unusable_files_are_counted(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i:03d}.wav" for i in range(25)]
    for path in paths:
        path.write_text("no sound")
    with pytest.raises(UnusableAudioError, match=r"25 of 25 .*019\.wav.*; and 5 more") as error:
        embed(Ear(), paths, tmp_path / "cache")
    assert "020.wav" not in str(error.value)


def _embed_and_save(paths: list[Path], cache: Path, out: Path) -> None:
    torch.set_num_threads(1)
    found = embed(Ear(), paths, cache)
    torch.save(torch.stack(found["features"]), out)


def test_two_processes_at_once_end_with_the_same(tmp_path: Path) -> None:
    paths = write_sounds(tmp_path / "a", 24)
    fork = multiprocessing.get_context("fork")
    outs = [tmp_path / f"{i}.pt" for i in range(2)]
    children = [fork.Process(target=_embed_and_save, args=(paths, tmp_path / "cache", out)) for out in outs]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    first, second = (torch.load(out, weights_only=True) for out in outs)
    assert torch.equal(first, second)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 24
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    paths = write_sounds(tmp_path / "a", 2)
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OSError, match="cache"):
        embed(Ear(), paths, tmp_path / "cache")
