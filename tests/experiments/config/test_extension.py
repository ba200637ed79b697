"""A new head or backbone is one file and one name in its registry: configs, systems and matrices take it as it is."""

import copy
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.ablate.matrix.expand import expand
from experiments.ablate.matrix.load import load_matrix
from experiments.config.resolve import build_model, load_config, resolve
from mntp.backbones import BACKBONES, Backbone
from mntp.batch import TextStates, TokenBatch
from mntp.heads import HEADS, Head
from mntp.seeding import make_generator
from tests.experiments.runs.support import MICRO

SYSTEMS = ("audio_ntp", "audio_mntp", "audio_mar")
FILE = '''
import torch
from torch import nn

from mntp.backbones import CausalTransformer
from mntp.heads import Head


class PointHead(Head):
    """A unit normal around a linear function of the context."""

    solvers = ("exact",)
    held_out_name = "square"

    def __init__(self, token_dim: int, cond_dim: int, gain: float = 1.0) -> None:
        super().__init__(token_dim, cond_dim)
        self.gain, self.net = gain, nn.Linear(cond_dim, token_dim)

    def loss(self, z, x, generator):
        return (x - self.gain * self.net(z)).square().mean(dim=-1)

    def held_out_loss(self, z, x, level, noise):
        return self.loss(z, x, None)

    def num_draws(self, sampling):
        return 1

    @torch.no_grad()
    def sample(self, z, noise, sampling, *, z_uncond=None, guidance_scale=1.0):
        return self.gain * self.net(z) + sampling.temperature * noise[:, 0]


class ScaledTransformer(CausalTransformer):
    """Contexts times a constant."""

    def __init__(self, *args, factor: float = 2.0, **sizes) -> None:
        super().__init__(*args, **sizes)
        self.factor = factor

    def _run(self, x, cache):
        return self.factor * super()._run(x, cache)
'''


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The user's file, its classes in the registries."""
    (tmp_path / "my_parts.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("my_parts")
    monkeypatch.setitem(HEADS, "PointHead", module.PointHead)
    monkeypatch.setitem(BACKBONES, "ScaledTransformer", module.ScaledTransformer)
    yield module
    del sys.modules["my_parts"]


def run(config: dict[str, Any]) -> Any:
    """Build, take a training step's gradient, measure and decode."""
    arguments = config["model"]["init_args"]
    arguments["decoding"]["num_diffusion_steps"], arguments["num_tokens"] = 2, 8
    arguments["backbone"]["init_args"].update(dim=16, depth=2, num_heads=2)
    system = build_model(resolve(config))
    text = {
        name: TextStates(torch.randn(2, 1, stream.dim), torch.ones(2, dtype=torch.long))
        for name, stream in system.prompt.streams.items()
    }
    tokens = torch.randn(2, 8, system.token_dim)
    batch = TokenBatch(tokens, torch.ones(2, 8).bool(), text, torch.arange(2), ["a", "b"])
    system.loss(batch, 0.5, make_generator(1)).backward()
    assert all(p.grad is not None for p in system.head.parameters())
    assert system.held_out_losses(batch)[0].isfinite().all()
    assert system.generate(text, seeds=[1, 2]).isfinite().all()
    return system


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("name", ["PointHead", *HEADS])
def test_every_system_takes_any_head_by_its_name(mine: Any, system: str, name: str) -> None:
    config = load_config(MICRO / f"{system}.yaml")
    config["model"]["init_args"]["head"] = {"class_path": name}
    config["model"]["init_args"]["head"]["init_args"] = {"gain": 0.5} if name == "PointHead" else {"width": 8}
    built = run(config)
    assert type(built.head) is HEADS[name]
    assert name != "PointHead" or built.head.gain == 0.5


@pytest.mark.parametrize("system", ["audio_ntp", "audio_mntp"])
def test_the_causal_systems_take_another_causal_backbone(mine: Any, system: str) -> None:
    config = load_config(MICRO / f"{system}.yaml")
    config["model"]["init_args"]["backbone"]["class_path"] = "ScaledTransformer"
    config["model"]["init_args"]["backbone"]["init_args"]["factor"] = 3.0
    assert run(config).backbone.factor == 3.0


def test_a_misspelt_key_of_the_new_head_is_answered_as_any_other(mine: Any) -> None:
    config = load_config(MICRO / "audio_mntp.yaml")
    config["model"]["init_args"]["head"] = {"class_path": "PointHead", "init_args": {"gian": 0.5}}
    with pytest.raises(ValueError, match=r"'gian' is not a key that model.head accepts; did you mean 'gain'\?"):
        resolve(config)
    config["model"]["init_args"]["head"] = {"class_path": "PointHeat"}
    with pytest.raises(ValueError, match=r"'PointHeat' is not a class that model.head accepts; did you mean 'Poin"):
        resolve(config)


def test_a_matrix_takes_the_new_head_as_one_row(mine: Any, tmp_path: Path) -> None:
    repository = Path(__file__).parents[3]
    row = """
      point:
        like: {table: table3, row: G}
        set: {model.init_args.head: {class_path: my_parts.PointHead, init_args: {gain: 0.5}}}
        description: a unit normal
"""
    mixture = "        description: a mixture of Gaussians (GIVT)\n"
    text = (repository / "ablations.yaml").read_text()
    assert mixture in text
    path = tmp_path / "ablations.yaml"
    path.write_text(text.replace(mixture, mixture + row.strip("\n") + "\n"))
    (tmp_path / "experiments").symlink_to(repository / "experiments")
    cells = {(cell.table, cell.row.id): cell.config for cell in expand(load_matrix(path), "micro", [0])}
    assert type(run(copy.deepcopy(cells["heads", "point"])).head) is mine.PointHead


def test_registries_hold_every_class_of_their_family() -> None:
    def concrete(cls: type) -> set[type]:
        own = {cls} if not getattr(cls, "__abstractmethods__", None) and cls is not Backbone else set()
        return own.union(*(concrete(sub) for sub in cls.__subclasses__()))

    for family, registry in ((Head, HEADS), (Backbone, BACKBONES)):
        ours = {cls for cls in concrete(family) if cls.__module__.startswith("mntp.")}
        assert ours == set(registry.values())
        assert all(cls.__name__ == name for name, cls in registry.items())
