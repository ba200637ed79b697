"""Same weights, same noise: our parts equal MAR's public code to 1e-5 of the largest value."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from mntp.backbones import MaskedEncoderDecoder
from mntp.batch import TextStream
from mntp.conditioning.guidance import Guidance
from mntp.heads import DiffusionHead, DiffusionSampling, likelihood
from mntp.heads.schedules import DiffusionSchedule
from mntp.initial_weights import ImageMAR
from mntp.masking import Fixed
from mntp.samplers import MaskedDecoding, TokenDrawer, decode_masked
from mntp.systems import AudioMAR
from tests.mntp.heads.mar_golden import ARRAYS, CONFIG, embedding_state, head_state, weight, write_checkpoint

SIZES = CONFIG["config"]
TOLERANCE = 1e-5


def close(ours: Tensor, name: str, tolerance: float = TOLERANCE) -> None:
    expected = ARRAYS[name]
    error = float((ours.double() - expected.double()).abs().max() / expected.double().abs().max())
    assert error < tolerance, f"{name}: off by {error:.2e} of the largest value"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> AudioMAR:
    """The golden weights in our AudioMAR: the blocks through the loader of public checkpoints, the rest by name."""
    path = tmp_path_factory.mktemp("mar") / "checkpoint-last.pth"
    write_checkpoint(path, {key: weight(key) for key in CONFIG["keys"]})
    system = AudioMAR(
        token_dim=SIZES["dim"],
        num_tokens=SIZES["grid"] ** 2,
        streams={"pooled": TextStream(SIZES["width"], SIZES["buffer"])},
        backbone=partial(MaskedEncoderDecoder, dim=SIZES["width"], depth=2 * SIZES["depth"], num_heads=SIZES["heads"]),
        head=partial(DiffusionHead, width=SIZES["head_width"], depth=SIZES["head_layers"]),
        mask_ratio=Fixed(0.7),
    )
    transfer = ImageMAR(path).apply(system)
    rest = embedding_state()
    assert {f"backbone.{name}" for name in rest} == {name for name in transfer.own if name.startswith("backbone.")}
    system.backbone.load_state_dict(rest, strict=False)
    system.head.net.load_state_dict(head_state())
    return system.eval()


@pytest.fixture(scope="module")
def head(system: AudioMAR) -> DiffusionHead:
    assert isinstance(system.head, DiffusionHead)
    return system.head


@pytest.fixture(scope="module")
def backbone(system: AudioMAR) -> MaskedEncoderDecoder:
    return system.backbone


@pytest.mark.parametrize(
    ("prefix", "schedule"),
    [
        ("schedule_train", DiffusionSchedule.cosine()),
        ("schedule_gen", DiffusionSchedule.cosine().respaced(SIZES["steps"])),
    ],
)
def test_schedule_tables(prefix: str, schedule: DiffusionSchedule) -> None:
    for theirs, ours in {
        "betas": schedule.betas,
        "alphas_cumprod": schedule.alpha_bar,
        "posterior_variance": schedule.posterior_variance,
        "posterior_log_variance_clipped": schedule.posterior_log_variance,
        "posterior_mean_coef1": schedule.posterior_mean_x0,
        "posterior_mean_coef2": schedule.posterior_mean_xt,
    }.items():
        torch.testing.assert_close(ours, ARRAYS[f"{prefix}_{theirs}"], rtol=1e-9, atol=1e-15)


def test_time_steps_kept_by_respacing() -> None:
    for steps, name in ((SIZES["steps"], "schedule_gen"), (100, "schedule_100")):
        assert torch.equal(DiffusionSchedule.cosine().respaced(steps).timesteps, ARRAYS[f"{name}_timestep_map"])


@torch.no_grad()
def test_head_network(head: DiffusionHead) -> None:
    close(head.net(ARRAYS["head_x"], ARRAYS["head_t"], ARRAYS["head_z"]), "head_out")


def bound_in_float64() -> Tensor:
    """Bound terms of the golden pairs; float32 is off by 2e-4 at t = 0 even when right."""
    head = DiffusionHead(SIZES["dim"], SIZES["width"], width=SIZES["head_width"], depth=SIZES["head_layers"])
    head.net.load_state_dict(head_state())
    z, x, noise = (ARRAYS[name].double() for name in ("head_z", "loss_x0", "loss_noise"))
    return head.double().loss_terms(z, x, ARRAYS["head_t"], noise)[1].detach()


@torch.no_grad()
def test_training_losses(head: DiffusionHead) -> None:
    assert {0, 999} <= set(ARRAYS["head_t"].tolist())
    mse, _ = head.loss_terms(ARRAYS["head_z"], ARRAYS["loss_x0"], ARRAYS["head_t"], ARRAYS["loss_noise"])
    close(mse, "loss_mse")
    close(bound_in_float64(), "loss_vb")
    torch.testing.assert_close(bound_in_float64(), ARRAYS["loss_vb"].double(), rtol=1e-4, atol=1e-6)  # the small ones


def test_the_exact_normal_cdf_would_be_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood, "approximate_normal_cdf", torch.special.ndtr)
    assert not torch.allclose(bound_in_float64(), ARRAYS["loss_vb"].double(), rtol=1e-4, atol=1e-6)


def test_sampling(head: DiffusionHead) -> None:
    noise = torch.cat([ARRAYS["sample_init"][None], ARRAYS["sample_noises"]]).transpose(0, 1)
    close(head.sample(ARRAYS["sample_z"], noise, DiffusionSampling(num_steps=SIZES["steps"])), "sample_plain")
    guided = head.sample(
        ARRAYS["sample_z"],
        noise,
        DiffusionSampling(num_steps=SIZES["steps"], temperature=0.9),
        z_uncond=ARRAYS["sample_z_uncond"],
        guidance_scale=3.0,
    )
    close(guided, "sample_guided")


def test_encoder_decoder(backbone: MaskedEncoderDecoder) -> None:
    prompt = ARRAYS["model_prompt"][:, None].expand(-1, SIZES["buffer"], -1)
    mask = ARRAYS["model_mask"].bool()
    close(backbone.encode(prompt, ARRAYS["model_tokens"], mask).detach(), "model_encoder_out")
    close(backbone(prompt, ARRAYS["model_tokens"], mask).detach(), "model_z")


class RecordedNoise:
    """MAR's draws: for each head call the starting noise [rows, D], then one [rows, D] a step, the last unused."""

    def __init__(self, seed: int, batch: int) -> None:
        self.random, self.batch, self.calls = np.random.RandomState(seed), batch, 0

    def normal(self, count: int, draws: int, dim: int) -> Tensor:
        self.calls += 1
        values = (
            self.random.standard_normal((self.batch * count, dim)),
            *(self.random.standard_normal((self.batch * count, dim)) for _ in range(draws)),
        )
        stacked = torch.from_numpy(np.stack(values[:draws], axis=1).astype(np.float32))
        return stacked.view(self.batch, count, draws, dim)


@pytest.mark.parametrize(
    ("run", "steps"), [("linear", SIZES["grid"] ** 2), ("constant", max(2, SIZES["grid"] ** 2 // 4))]
)
def test_whole_decoding(backbone: MaskedEncoderDecoder, head: DiffusionHead, run: str, steps: int) -> None:
    noise = RecordedNoise(CONFIG["noise_seed"], batch=2)
    sampling, guidance = DiffusionSampling(num_steps=SIZES["steps"]), Guidance(4.0, schedule=run)  # type: ignore[arg-type]
    decoding = MaskedDecoding(sampling, guidance, num_steps=steps)
    drawer = TokenDrawer(head, decoding, noise, SIZES["grid"] ** 2)  # type: ignore[arg-type]  # draws by another rule
    prompt = ARRAYS["decode_class_embedding"][:, None].expand(-1, SIZES["buffer"], -1)
    fake_prompt = ARRAYS["decode_fake_prompt"][None].expand(2, SIZES["buffer"], -1)
    *_, drawn = decode_masked(
        backbone,
        drawer,
        drawer.branches(prompt, fake_prompt),
        torch.zeros(2, 0, SIZES["dim"]),
        decoding,
        orders=ARRAYS["decode_orders"].flip(1),
    )
    close(drawn.tokens, f"decode_{run}_tokens")
    assert noise.calls == int(ARRAYS[f"decode_{run}_num_head_calls"])
