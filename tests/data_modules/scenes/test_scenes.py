"""The embedded corpus: captions are read by a parser of their own, and checked against the waveform alone."""

import hashlib
import re
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from data_modules.scenes import CLASSES, SPLITS, EmbeddedCorpus, Scene, synthesise
from data_modules.scenes.layout import draw_plan
from data_modules.scenes.scene import random_stream

RATE = 16_000
Signal = NDArray[np.float64]
PITCH_WORDS = {"low": "low|low-pitched|deep", "mid": "mid-pitched|medium-pitched", "high": "high|high-pitched"}
# What may be heard as low, mid or high, sirens' sweeps included.
BANDS = {"low": (80, 320), "mid": (320, 1100), "high": (1250, 4600)}
KIND_WORDS = {
    "tone": r"tones?",
    "chirp": r"chirp|sweep",
    "siren": r"siren",
    "buzz": r"buzz",
    "burst": r"noise bursts?|bursts? of noise",
    "click": r"clicks?|ticks?",
    "pluck": r"plucked notes?|string plucks?|string is plucked",
    "bell": r"bell( strikes?| notes?| rings)",
    "rain": r"rain",
    "wind": r"wind",
}
PITCHED = {"tone", "siren", "buzz", "pluck", "bell"}


@cache
def scenes(count: int = 800) -> list[Scene]:
    return [synthesise(5, "train", index) for index in range(count)]


def has(words: str, text: str) -> bool:
    # A hyphen belongs to a word: "high" is not in "high-pitched".
    return re.search(rf"(?<![\w-])({words})(?![\w-])", text) is not None


def pitch_of(text: str) -> str:
    return next(pitch for pitch, words in PITCH_WORDS.items() if has(words, text))


def count_of(text: str) -> int:
    return next((n for n, words in {2: "two|twice", 3: "three", 4: "four"}.items() if has(words, text)), 1)


def kind_of(text: str) -> str:
    return next(kind for kind, words in KIND_WORDS.items() if has(words, text))


def phrases(caption: str) -> list[str]:
    """The sources' phrases in order of time; only for captions without a bed."""
    if " after " in caption:
        return caption.split(" after ")[::-1]
    return re.split(r", then |, | followed by ", caption)


def has_bed(caption: str) -> bool:
    return has("over|while", caption)


def alone(pattern: str) -> list[Scene]:
    """Scenes of a single source whose caption has a word of `pattern`."""
    found = [s for s in scenes() if not has_bed(s.caption) and len(phrases(s.caption)) == 1 and has(pattern, s.caption)]
    assert len(found) >= 5, pattern
    return found


def pairs() -> list[tuple[str, list[str], list[NDArray[np.float32]]]]:
    """Scenes of two sources one after the other: caption, phrases, and the waveform cut before the second source.

    Only the place of the cut is taken from the plan; what is on either side must be found in the waveform.
    """
    found = []
    for index, scene in enumerate(scenes()):
        if not has_bed(scene.caption) and len(phrases(scene.caption)) == 2:
            plan = draw_plan(random_stream(5, "train", index), len(scene.waveform))
            cut = plan.foreground[1].onsets[0] - 200
            found.append((scene.caption, phrases(scene.caption), [scene.waveform[:cut], scene.waveform[cut:]]))
    return found


def spectrogram(waveform: NDArray[np.float32]) -> Signal:
    """Power [frames, 1025] of 128 ms windows every 16 ms; bins of 7.8 Hz."""
    frames = np.lib.stride_tricks.sliding_window_view(waveform.astype(np.float64), 2048)[::256]
    return np.abs(np.fft.rfft(frames * np.hanning(2048))) ** 2


def dominant_hz(waveform: NDArray[np.float32]) -> Signal:
    """Frequency of the strongest bin of every frame that is not 25 dB below the loudest one."""
    power = spectrogram(waveform)
    loud = power.sum(axis=1) > power.sum(axis=1).max() / 300
    return power[loud].argmax(axis=1) * RATE / 2048


def centroid_hz(waveform: NDArray[np.float32]) -> float:
    power = spectrogram(waveform).sum(axis=0)
    return float((power * np.arange(1025)).sum() / power.sum() * RATE / 2048)


def level_db(waveform: NDArray[np.float32]) -> float:
    """Of the loudest 16 ms."""
    energy = np.convolve(waveform.astype(np.float64) ** 2, np.ones(256) / 256, mode="valid")
    return float(10 * np.log10(energy.max()))


def onsets(waveform: NDArray[np.float32]) -> Signal:
    """Times in seconds at which the energy of 20 ms jumps up by 3 dB above the quietest of the 60 ms before."""
    energy = np.convolve(np.pad(waveform.astype(np.float64), (320, 0)) ** 2, np.ones(320), mode="valid")[::32]
    energy = np.pad(energy, (30, 0)) + 0.03 * energy.max()  # below -15 dB is noise
    before = np.lib.stride_tricks.sliding_window_view(energy, 30).min(axis=1)[:-1]
    rising = energy[30:] > 2 * before
    times = np.flatnonzero(rising & ~np.concatenate([[False], rising[:-1]])) * 32 / RATE
    return times[np.concatenate([[True], np.diff(times) > 0.08])]


def in_band(frequency: float, pitch: str) -> bool:
    low, high = BANDS[pitch]
    return low < frequency < high


@pytest.mark.parametrize("kind", sorted(PITCHED))
def test_the_pitch_is_the_one_in_the_caption(kind: str) -> None:
    for scene in alone(KIND_WORDS[kind]):
        assert in_band(float(np.median(dominant_hz(scene.waveform))), pitch_of(scene.caption)), scene.caption


def test_sirens_and_chirps_go_where_the_caption_says() -> None:
    for scene in alone("siren|chirp|sweep"):
        course = dominant_hz(scene.waveform)
        first, last = course[:12].mean(), course[-12:].mean()
        if has("rises|rising|climbs|sweeps up", scene.caption):
            assert last > 1.4 * first, scene.caption
        elif has("falls|falling|sinks|sweeps down", scene.caption):
            assert first > 1.4 * last, scene.caption
        else:
            assert course.max() > 1.3 * course.min(), scene.caption


def test_chirps_cross_from_low_to_high_and_sirens_keep_their_pitch_class() -> None:
    for scene in alone("siren|chirp|sweep"):
        course = dominant_hz(scene.waveform)
        if scene.classes == ("chirp",):
            assert course.min() < 500, scene.caption
            assert course.max() > 1500, scene.caption
        else:
            assert all(in_band(frequency, pitch_of(scene.caption)) for frequency in course), scene.caption


@pytest.mark.parametrize("kind", ["tone", "burst", "click", "pluck", "bell"])
def test_strokes_can_be_counted(kind: str) -> None:
    found = alone(KIND_WORDS[kind])
    for scene in found:
        assert len(onsets(scene.waveform)) == count_of(scene.caption), scene.caption
    assert len({count_of(scene.caption) for scene in found}) >= 3


def test_quick_and_slow_are_what_they_say() -> None:
    for scene in alone("quick|rapid|slow"):
        interval = float(np.diff(onsets(scene.waveform)).mean())
        low, high = (0.45, 0.75) if has("slow", scene.caption) else (0.09, 0.15)
        assert low < interval < high, scene.caption


def test_short_and_long_are_what_they_say() -> None:
    for scene in alone("short|long"):
        seconds = np.ptp(np.flatnonzero(np.abs(scene.waveform) > 0.05)) / RATE
        assert seconds < 0.3 if has("short", scene.caption) else seconds > 0.95, scene.caption


def test_rain_is_high_noise_and_wind_is_low_noise() -> None:
    assert all(centroid_hz(scene.waveform) > 3000 for scene in alone("rain"))
    assert all(centroid_hz(scene.waveform) < 700 for scene in alone("wind"))


def test_sources_follow_each_other_in_the_captions_order() -> None:
    checked = 0
    for caption, said, parts in pairs():
        if not all(kind_of(phrase) in PITCHED for phrase in said) or pitch_of(said[0]) == pitch_of(said[1]):
            continue
        for part, phrase in zip(parts, said, strict=True):
            assert in_band(float(np.median(dominant_hz(part))), pitch_of(phrase)), caption
        checked += 1
    assert checked > 30


def test_counts_belong_to_their_own_source() -> None:
    checked = 0
    for caption, said, parts in pairs():
        for part, phrase in zip(parts, said, strict=True):
            if kind_of(phrase) in {"tone", "burst", "click", "pluck", "bell"}:
                assert len(onsets(part)) == count_of(phrase), caption
                checked += 1
    assert checked > 100


def test_loud_and_quiet_compare_the_sources_of_a_sequence() -> None:
    marked = 0
    for caption, said, parts in pairs():
        first, second = (level_db(part) for part in parts)
        if not has("loud|quiet", caption):
            assert abs(first - second) < 4, caption
            continue
        louder, quieter = (first, second) if has("loud", said[0]) else (second, first)
        assert louder - quieter > 11, caption
        marked += 1
    assert marked > 30


def prominence_db(waveform: NDArray[np.float32]) -> float:
    """How far the strongest partial of a held tone stands above the noise between the partials."""
    power = spectrogram(waveform)
    peak = power[np.arange(len(power)), power.argmax(axis=1)]
    return float(np.quantile(10 * np.log10(peak / np.median(power, axis=1)), 0.9))


def test_loud_and_quiet_compare_a_source_with_its_bed() -> None:
    found: dict[str, list[float]] = {"loud": [], "quiet": [], "": []}
    for scene in scenes():
        source, *bed = re.split(r" over | while ", scene.caption)
        if bed and "then" not in source and has("tones?|siren", source) and has("rain", bed[0]):
            word = next((word for word in ("loud", "quiet") if has(word, source)), "")
            found[word].append(prominence_db(scene.waveform))
    assert min(len(values) for values in found.values()) >= 3
    assert min(found["loud"]) > max(found["quiet"]) + 8
    assert max(found["quiet"]) < np.median(found[""]) < np.median(found["loud"])


def test_classes_are_the_sources_of_the_caption() -> None:
    seen = set()
    for scene in scenes():
        said = {kind for kind, words in KIND_WORDS.items() if has(words, scene.caption)}
        assert said == set(scene.classes), scene.caption
        assert len(scene.classes) == len(set(scene.classes)) <= 3
        seen |= said
    assert seen == set(CLASSES) == set(KIND_WORDS)


def test_captions_are_short_and_varied() -> None:
    captions = [scene.caption for scene in scenes()]
    assert max(len(caption.split()) for caption in captions) <= 16
    assert len(set(captions)) > 0.8 * len(captions)
    assert len({word for caption in captions for word in caption.replace(",", "").split()}) < 100
    for pattern in ("then", "followed by", "after", "over", "while", "loud", "quiet", "quick", "slow", "short", "long"):
        assert any(has(pattern, caption) for caption in captions), pattern
    assert not any(re.search(r"  |,,| ,|\ba [aeiou]", caption) for caption in captions)


@pytest.mark.parametrize("seconds", [0.16, 0.48, 0.8, 1.28, 10.24])
def test_other_lengths_keep_their_promises(seconds: float) -> None:
    for index in range(60):
        scene = synthesise(1, "val", index, seconds)
        assert scene.waveform.shape == (round(seconds * RATE),)
        assert scene.waveform.dtype == np.float32
        assert np.abs(scene.waveform).max() == pytest.approx(0.5)
        assert len(scene.caption.split()) <= 16
        if not has_bed(scene.caption) and len(phrases(scene.caption)) == 1 and scene.classes[0] in {"click", "pluck"}:
            assert len(onsets(scene.waveform)) == count_of(scene.caption), scene.caption


def test_a_scene_is_a_function_of_its_arguments() -> None:
    first, again = synthesise(0, "train", 7), synthesise(0, "train", 7)
    assert first.caption == again.caption
    assert first.waveform.tobytes() == again.waveform.tobytes()
    assert EmbeddedCorpus().scene("train", 7).waveform.tobytes() == first.waveform.tobytes()
    for other in (synthesise(1, "train", 7), synthesise(0, "val", 7), synthesise(0, "train", 8)):
        assert other.waveform.tobytes() != first.waveform.tobytes()


FINGERPRINT = """
import hashlib
import numpy as np
from data_modules.scenes import SPLITS, synthesise
digest = hashlib.sha256()
for split in SPLITS:
    for index in range(5):
        scene = synthesise(0, split, index)
        digest.update(scene.caption.encode())
        digest.update(np.round(scene.waveform.astype(np.float64) * 32767).astype("<i2").tobytes())
"""


def test_the_same_seed_gives_the_same_bytes_in_every_process_and_release() -> None:
    """A change of the golden value is a change of the corpus: results before and after can't be compared."""
    scope: dict[str, object] = {}
    exec(FINGERPRINT, scope)  # the very code that the other process runs
    code = FINGERPRINT + "print(digest.hexdigest())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    here = scope["digest"]
    assert isinstance(here, type(hashlib.sha256()))
    assert here.hexdigest() == other
    assert other == "1cadfcd69f24c7f724d39a2f21d72d6d9cf8f7d55eb523c197b7533f3faa7460"


def test_splits_share_no_waveform() -> None:
    digests = [
        hashlib.sha256(synthesise(seed, split, index).waveform.tobytes()).digest()
        for seed in (0, 1)
        for split in SPLITS
        for index in range(30)
    ]
    assert len(set(digests)) == len(digests)


def test_a_corpus_describes_itself() -> None:
    corpus = EmbeddedCorpus(num_train=5, num_val=3, num_test=2, seconds=0.32, seed=4)
    assert corpus.splits() == {"train": 5, "val": 3, "test": 2}
    settings = corpus.settings()
    assert settings.pop("version") >= 1
    assert EmbeddedCorpus(**settings) == corpus
    assert corpus.scene("test", 1).waveform.shape == (5120,)


@pytest.mark.parametrize("seconds", [0.0, -2.56, 1.0, 2.5])
def test_lengths_that_do_not_fill_slices_are_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match=rf"{seconds} seconds; expected a positive multiple of 0\.16"):
        synthesise(0, "train", 0, seconds)
    with pytest.raises(ValueError, match=r"multiple of 0\.16"):
        EmbeddedCorpus(seconds=seconds)


def test_misuse_is_answered_in_words() -> None:
    with pytest.raises(ValueError, match=r"unknown split 'dev'.*train, val, test"):
        synthesise(0, "dev", 0)
    with pytest.raises(ValueError, match="seed -1"):
        synthesise(-1, "train", 0)
    with pytest.raises(ValueError, match="num_val of the embedded corpus is -3"):
        EmbeddedCorpus(num_val=-3)
    with pytest.raises(ValueError, match="scene 2 of split 'test': it has scenes 0 to 1"):
        EmbeddedCorpus(num_test=2).scene("test", 2)
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        EmbeddedCorpus().scene("dev", 0)
