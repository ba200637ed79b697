"""Half precision is for the matrix products alone, seen by hooks while Lightning's own trainer takes real steps."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader

from callbacks import EMA, AtomicCheckpointIO
from mntp.heads import HEADS, DiffusionHead, FlowMatchingHead
from mntp.layers import LayerNorm, matrices_to_bfloat16
from mntp.masking import Uniform
from mntp.systems import AudioSystem
from mntp.systems.optimisation import Optimisation
from tests.systems_support import tiny_batch, tiny_system

STEPS = 3
HALVES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
CASES = [("A", "DiffusionHead"), ("K", "DiffusionHead"), *(("G", head) for head in HEADS)]
# The scaler passes over steps that overflow, which Lightning's schedule doesn't know.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
]


class Watch(Callback):
    """Dtypes of everything that is to stay in float32, and of the matrix products, by what it is."""

    def __init__(self, ema: EMA) -> None:
        self.ema = ema
        self.seen: dict[str, set[torch.dtype]] = {}
        self.weights: list[Tensor] = []
        self.averages: list[Tensor] = []

    def see(self, what: str, *tensors: Tensor | None) -> None:
        self.seen.setdefault(what, set()).update(t.dtype for t in tensors if t is not None)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        system = pl_module
        assert isinstance(system, AudioSystem)
        for module in system.modules():
            if isinstance(module, LayerNorm):
                module.register_forward_hook(lambda _, __, out: self.see("norms", out))
            elif isinstance(module, nn.LayerNorm):
                raise AssertionError("a norm that is not ours")
            elif isinstance(module, nn.Linear):
                module.register_forward_hook(lambda _, __, out: self.see("matrix products", out))
        head = system.head
        if isinstance(head, (DiffusionHead, FlowMatchingHead)):
            head.net.register_forward_pre_hook(lambda _, args: self.see("noisy tokens", args[0]))
        name = {"DiffusionHead": "loss_terms", "FlowMatchingHead": "_error", "MixtureHead": "_nll"}[type(head).__name__]
        inner = getattr(head, name)

        def terms(z: Tensor, x: Tensor, *rest: Tensor) -> Any:
            self.see("noise", *rest[1:])
            out = inner(z, x, *rest)
            self.see("loss of a pair", *(out if isinstance(out, tuple) else [out]))
            return out

        setattr(head, name, terms)

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        self.see("loss", loss)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        self.see("gradients", *(p.grad for p in pl_module.parameters()))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        average = self.ema._average_model
        assert average is not None
        self.see("average", *average.parameters())
        self.see("weights", *pl_module.parameters())
        moments = [m for state in trainer.optimizers[0].state.values() for m in state.values()]
        self.see("moments", *(m for m in moments if m.ndim))
        self.weights.append(nn.utils.parameters_to_vector(pl_module.parameters()).detach().clone())
        self.averages.append(nn.utils.parameters_to_vector(average.module.parameters()).detach().clone())


def fit(folder: Path, system: AudioSystem, precision: str) -> Watch:
    ema = EMA(0.9999)
    watch = Watch(ema)
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0) if precision == "16-mixed" else None
    L.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        gradient_clip_val=3.0,
        plugins=[MixedPrecision(precision, "cpu", scaler), AtomicCheckpointIO()],  # type: ignore[arg-type]
        callbacks=[ema, watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    ).fit(system, DataLoader([tiny_batch(4, seed) for seed in range(STEPS)], batch_size=None))  # type: ignore[arg-type]
    return watch


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize(("row", "head"), CASES)
def test_only_matrix_products_are_in_half_precision(tmp_path: Path, row: str, head: str, precision: str) -> None:
    arguments = {} if row == "A" else {"mask_ratio": Uniform(0.2, 0.8)}
    watch = fit(tmp_path, tiny_system(row, head=head, **arguments), precision)
    assert watch.seen.pop("matrix products") == {HALVES[precision]}
    if head == "MixtureHead":
        assert watch.seen.pop("noise") == set()
    else:
        assert "noisy tokens" in watch.seen
    expected = {"norms", "loss of a pair", "loss", "gradients", "average", "weights", "moments"}
    assert watch.seen.keys() >= expected
    assert watch.seen == {what: {torch.float32} for what in watch.seen}
    assert len(watch.weights) == STEPS and not torch.equal(watch.weights[0], watch.weights[-1])
    value = watch.weights[0]
    for update, weights in enumerate(watch.weights[1:], start=1):
        decay = min(0.9999, (1 + update) / (10 + update))
        value = decay * value + (1 - decay) * weights
        torch.testing.assert_close(watch.averages[update], value, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("precision", HALVES)
def test_a_fused_update_is_clipped_and_scaled_as_a_plain_one(tmp_path: Path, precision: str) -> None:
    chosen = {fused: Optimisation(learning_rate=1e-2, fused=fused) for fused in (True, False)}
    plain, fused = (fit(tmp_path, tiny_system("G", optimisation=chosen[key]), precision) for key in (False, True))
    for one, other in zip(fused.weights, plain.weights, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)  # a step moves a weight by up to 1e-2
    assert not torch.equal(fused.weights[0], fused.weights[-1])


@pytest.mark.parametrize("row", ["A", "G", "K"])
@pytest.mark.parametrize("half", HALVES.values(), ids=str)
def test_sampling_keeps_tokens_in_float32(row: str, half: torch.dtype) -> None:
    system, batch = tiny_system(row).eval(), tiny_batch()
    system.decoding = replace(
        system.decoding, sampling=replace(system.decoding.sampling, x0_limit=5.0)
    )  # untrained, its estimates leave float16's range
    seen: set[torch.dtype] = set()
    assert isinstance(system.head, DiffusionHead)
    system.head.net.input_proj.register_forward_pre_hook(lambda _, args: seen.add(args[0].dtype))
    whole = system.generate(batch.text, seeds=range(4))
    with torch.autocast("cpu", half):
        tokens = system.generate(batch.text, seeds=range(4))
    assert seen == {tokens.dtype} == {torch.float32}
    assert not torch.equal(tokens, whole)  # the products were in half precision
    assert tokens.isfinite().all()


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_weights_in_half_precision_are_refused(tmp_path: Path, precision: Any) -> None:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = L.Trainer(max_steps=1, accelerator="cpu", precision=precision, default_root_dir=tmp_path, **quiet)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"trainer.precision {precision} would keep weights.*set bf16-mixed"):
        trainer.fit(tiny_system(), DataLoader([tiny_batch()], batch_size=None))  # type: ignore[arg-type]


@pytest.mark.parametrize("row", ["A", "G", "K"])
def test_drawing_in_bfloat16_keeps_noise_norms_and_tokens_in_float32(row: str) -> None:
    """Read off the layers while a clip is drawn; the products alone are in half precision, and only inside a step."""
    system, text = tiny_system(row).eval(), tiny_batch().text
    system.decoding = replace(system.decoding, sampling=replace(system.decoding.sampling, x0_limit=4.0))
    exact = system.generate(text, range(4))
    half = copy.deepcopy(system)
    matrices_to_bfloat16(half)
    kinds: dict[type, set[torch.dtype]] = {nn.Linear: set(), LayerNorm: set()}
    for part in half.modules():
        for kind, seen in kinds.items():
            if isinstance(part, kind):
                part.register_forward_hook(lambda _, __, out, seen=seen: seen.add(out.dtype))
    drawn: list[Tensor] = []
    sample = half.head.sample

    def spy(z: Tensor, noise: Tensor, *arguments: Any, **named: Any) -> Tensor:
        drawn.extend([noise, sample(z, noise, *arguments, **named)])
        return drawn[-1]

    half.head.sample = spy  # type: ignore[method-assign]
    for tokens, *_ in half.stream(text, range(4)):  # noqa: B007  # the same tensor each time
        assert not torch.is_autocast_enabled("cpu")  # the caller's own work is in his own precision
    assert kinds == {nn.Linear: {torch.bfloat16}, LayerNorm: {torch.float32}}
    assert {tensor.dtype for tensor in (tokens, *drawn)} == {torch.float32}
    assert not torch.equal(tokens, exact)
    assert float((tokens - exact).square().mean().sqrt()) < 0.1 * float(exact.square().mean().sqrt())
