"""`mntp bench train` on a tiny model: the line that it prints; and the FLOPs that dropping saves at Base size."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from experiments.bench.flops import count_flops
from experiments.bench.train import TrainingStep, train
from experiments.config.resolve import build_model, load_config, resolve
from experiments.main import main
from mntp.masking import num_hidden_when_dropping
from mntp.seeding import make_generator
from mntp.systems import AudioNTP, audio_mntp, audio_ntp

CONFIGS = Path(__file__).parents[3] / "experiments/configs"
TINY: dict[str, Any] = {
    "model": {"init_args": {"backbone": {"init_args": {"dim": 16, "depth": 2, "num_heads": 2}}}},
    "trainer": {"accelerator": "cpu"},
}
EAGER: dict[str, Any] = {
    "trainer": {
        "precision": "bf16-mixed",
        "callbacks": [{"class_path": "callbacks.Compile", "init_args": {"bucket": 16, "backend": "eager"}}],
    }
}
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


def config(name: str, *overlays: dict[str, Any]) -> dict[str, Any]:
    return resolve(load_config(CONFIGS / name), *overlays)


def test_one_line_of_json_beside_the_plain_variant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--config", str(CONFIGS / "micro/audio_mntp.yaml")]
    for number, overlay in enumerate((TINY, EAGER)):
        file = tmp_path / f"{number}.yaml"
        file.write_text(yaml.safe_dump(overlay))
        words += ["--config", str(file)]
    torch._dynamo.reset()
    monkeypatch.setattr(sys, "argv", ["mntp", "bench", "train", *words, "--steps", "6", "--batch-size", "3"])
    with pytest.raises(SystemExit) as exit:
        main()
    assert not exit.value.code
    (line,) = capsys.readouterr().out.splitlines()
    report = json.loads(line)
    assert (report["system"], report["precision"], report["batch_size"]) == ("AudioMNTP", "bf16-mixed", 3)
    assert report["clips_per_second"].keys() == report["median_seconds"].keys() == {"configured", "plain"}
    assert report["graphs"]["all"] == report["graphs"]["first"] > 0, "what is compiled while it is timed isn't timed"
    assert (
        0
        < report["fraction_of_ceiling"]
        == pytest.approx(report["flops_per_second"] / report["ceiling_flops_per_second"], rel=1e-3)
    )
    assert report["speed_up"] > 0 and report["peak_memory_bytes"] > 0
    step = TrainingStep(config("micro/audio_mntp.yaml", TINY), 3)
    flops = [count_flops(partial(step.backward, turn, step.clips(3))) for turn in range(6)]
    assert report["flops_per_step"] == sum(flops) // 6


def test_a_step_learns_and_is_the_training_s_own() -> None:
    step, other = (TrainingStep(config("micro/audio_mntp.yaml", TINY), 2) for _ in range(2))
    before = [p.detach().clone() for p in step.system.parameters()]
    for turn in range(3):
        step(turn)
        other(turn)
    assert any(not torch.equal(p, was) for p, was in zip(step.system.parameters(), before, strict=True))
    for one, two in zip(step.system.parameters(), other.system.parameters(), strict=True):
        assert torch.equal(one, two)
    assert len({step.ratio(turn) for turn in range(10)}) == 10


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"steps": 0}])
def test_what_is_out_of_range_is_said(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected numbers above 0"):
        train([CONFIGS / "micro/audio_mntp.yaml"], **{"batch_size": 2, "steps": 2, **wrong})


# --- FLOPs at Base size, on the meta device ---------------------------------------------------------------------------


class MetaCount:
    """FLOPs of a training step of one clip by the number of kept tokens, nothing computed.

    Which tokens are kept is data, which the meta device hasn't got: only how many is told to it.
    """

    def __init__(self, resolved: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        with torch.device("meta"):
            model = build_model(resolved)
        assert isinstance(model, AudioNTP)
        self.model = model.train()

        def random_mask(batch: int, num_tokens: int, num_hidden: int, _: Any) -> Tensor:
            return torch.empty(batch, num_tokens, dtype=torch.bool, device="meta")

        for module in (audio_mntp, audio_ntp):
            monkeypatch.setattr(module, "random_mask", random_mask)

    def __call__(self, ratio: float) -> int:
        model = self.model
        batch = TrainingStep.clips(_OnMeta(model), 1)  # type: ignore[arg-type]
        return count_flops(lambda: model.loss(batch, ratio, None).backward())  # type: ignore[arg-type,no-untyped-call]


class _OnMeta:
    device = torch.device("meta")

    def __init__(self, system: AudioNTP) -> None:
        self.system = system


def at(counts: dict[int, int], kept: int) -> float:
    """The count at another number of kept tokens: attention is quadratic in it, all else linear."""
    (a, b, c), values = sorted(counts), [counts[key] for key in sorted(counts)]
    weights = (
        (kept - b) * (kept - c) / ((a - b) * (a - c)),
        (kept - a) * (kept - c) / ((b - a) * (b - c)),
        (kept - a) * (kept - b) / ((c - a) * (c - b)),
    )
    return sum(weight * value for weight, value in zip(weights, values, strict=True))


def test_counts_on_the_meta_device_are_those_of_real_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = config("micro/audio_mntp.yaml", TINY)
    step = TrainingStep(resolved, 1)
    real = [count_flops(partial(step.backward, turn, step.clips(1))) for turn in range(3)]
    count = MetaCount(resolved, monkeypatch)
    assert [count(step.ratio(turn)) for turn in range(3)] == real
    counts = {kept: count(1 - kept / 64) for kept in (8, 16, 64)}
    assert at(counts, 40) == pytest.approx(count(1 - 40 / 64), rel=1e-9)


def test_audiomntp_takes_less_than_half_of_audiontps_flops_at_base_size(monkeypatch: pytest.MonkeyPatch) -> None:
    ntp = MetaCount(config("base/audio_ntp.yaml"), monkeypatch)(0.0)
    count = MetaCount(config("base/audio_mntp.yaml"), monkeypatch)
    counts = {kept: count(1 - kept / 256) for kept in (16, 64, 256)}
    assert counts[256] == ntp
    assert counts[64] == pytest.approx(0.18e12, rel=0.02)  # specs: 0.18 TFLOP a clip at a ratio of 75 %
    assert ntp / counts[64] > 2.6
    draws = (count.model.draw_ratio(make_generator("law", draw)) for draw in range(2000))
    kept = [256 - num_hidden_when_dropping(ratio, 256) for ratio in draws]
    share = sum(at(counts, number) for number in kept) / len(kept) / ntp
    assert share == pytest.approx(0.42, abs=0.01)  # of the default mixture
    count.model.length_multiple = 16
    head = counts[16] - count(1 - 15 / 256)  # one token less in the head, none in the backbone
    filled = [-(-number // 16) * 16 for number in kept]
    filling = [at(counts, whole) - head * (whole - number) for whole, number in zip(filled, kept, strict=True)]
    assert share < sum(filling) / len(kept) / ntp < 0.45 < 0.5
