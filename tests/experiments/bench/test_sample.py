"""`mntp bench sample` and `head`: the plain variant draws the same tokens, and the counts are what they say."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from experiments.bench.flops import count_bytes, count_flops
from experiments.bench.head import head
from experiments.bench.plain import decode_plain, plain_head
from experiments.bench.sample import sample
from experiments.main import call
from mntp.conditioning.guidance import Guidance
from mntp.samplers import ClipNoise
from mntp.systems import AudioNTP
from tests.experiments.runs.support import tiny_config
from tests.systems_support import SAMPLING, D, N, tiny_batch, tiny_system

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("head_name", ["DiffusionHead", "FlowMatchingHead", "MixtureHead"])
@pytest.mark.parametrize("row", ["A", "G", "I"])
def test_the_engine_draws_what_the_plain_variant_draws(row: str, head_name: str, scale: float) -> None:
    """Same noise, no cache, nothing shared: equal to 1e-5 in float32, from the start or behind a given beginning."""
    system = tiny_system(row, head=head_name).eval()
    assert isinstance(system, AudioNTP)
    system.decoding = type(system.decoding)(
        {**SAMPLING.get(head_name, {"num_steps": 4}), "x0_limit": 4.0}, Guidance(scale)
    )
    with torch.no_grad():
        prompt, fake = system.prompt(tiny_batch().text), system.prompt.fake(4)
        for known in (torch.zeros(4, 0, D), torch.randn(4, 5, D)):
            noise = [ClipNoise(range(4), torch.device("cpu")) for _ in range(2)]
            *_, engine = system.decode(prompt, fake, noise[0], known, N)
            plain = list(decode_plain(system, plain_head(system.head), prompt, fake, noise[1], known, N))
            torch.testing.assert_close(engine.tokens, plain[-1].tokens, rtol=1e-5, atol=1e-5)
            assert [drawn.num_drawn for drawn in plain] == list(range(known.shape[1] + 1, N + 1))


def test_bytes_are_operands_and_results_of_matrix_products() -> None:
    left, right, bias = torch.randn(3, 5), torch.randn(5, 7), torch.randn(7)
    assert count_bytes(lambda: left @ right) == 4 * (3 * 5 + 5 * 7 + 3 * 7)
    assert count_bytes(lambda: torch.addmm(bias, left, right).sin()) == 4 * (7 + 3 * 5 + 5 * 7 + 3 * 7)
    assert count_flops(lambda: left @ right) == 2 * 3 * 5 * 7


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    (line,) = capsys.readouterr().out.splitlines()
    report: dict[str, Any] = json.loads(line)
    return report


def test_bench_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_config(tmp_path)
    config["model"]["init_args"]["decoding"]["sampling"]["num_steps"] = 30
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    words = ["--config", str(tmp_path / "config.yaml"), "--places", "2", "--repeats", "1", "--steps", "5"]
    call(sample, "bench sample", words)
    report = printed(capsys)
    ways = ["plain", "engine", "solver", "parallel", "parallel_solver"]
    for key in (
        "seconds_per_clip",
        "seconds_to_first_window",
        "speed_up",
        "flops_per_clip",
        "bytes_per_clip",
        "fraction_of_ceiling",
    ):
        assert list(report[key]) == ways, key
        assert all(value > 0 for value in report[key].values())
    assert report["speed_up"]["plain"] == 1
    assert report["decoding"]["solver"] == {"solver": "sde_dpmpp_2m", "steps": 5, "tokens_per_call": 1}
    assert report["decoding"]["parallel"]["tokens_per_call"] == 4
    # Counts, unlike times, can be held against each other.
    flops, moved = report["flops_per_clip"], report["bytes_per_clip"]
    assert flops["solver"] < flops["engine"] < flops["plain"]
    assert moved["parallel"] < moved["engine"] < moved["plain"]
    assert report["clip"] == {"tokens": [16, 32], "seconds": 0.64}


def test_bench_sample_of_a_system_without_a_cache(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tiny_config(tmp_path, "audio_mar")))
    with pytest.raises(ValueError, match=r"^bench sample: expected a config of AudioNTP or AudioMNTP, got AudioMAR$"):
        sample([tmp_path / "config.yaml"])


def test_bench_sample_of_more_tokens_a_call_than_can_be_timed(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tiny_config(tmp_path)))
    with pytest.raises(ValueError, match=r"^got tokens_per_call=6, expected 1 to 5, a third of the clip$"):
        sample([tmp_path / "config.yaml"], tokens_per_call=6)


def test_bench_head(capsys: pytest.CaptureFixture[str]) -> None:
    head(token_dim=4, cond_dim=8, width=16, depth=2, steps=20, fewer_steps=5, repeats=1)
    report = printed(capsys)
    flops, seconds = report["flops"], report["median_seconds"]
    assert set(flops) == set(seconds) == set(report["speed_up"]) == set(report["bytes"])
    assert flops["ddim_5"] < flops["half_guided"] < flops["ancestral_20"] < flops["plain"]
    assert {name for name in flops if name.startswith("sde_dpmpp_2m")} == {"sde_dpmpp_2m_20", "sde_dpmpp_2m_5"}
    with pytest.raises(ValueError, match="expected sizes and numbers above 0"):
        head(batch_size=0)
