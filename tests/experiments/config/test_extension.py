"""Parts of a user's own package work by their dotted path: in configs, matrices, plans, runs and scorings.

The package is written to a folder on `sys.path` and registered nowhere.
"""

import copy
import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from experiments.ablate.matrix.expand import expand
from experiments.ablate.matrix.load import load_matrix
from experiments.ablate.plan.options import PlanOptions
from experiments.commands import ablate
from experiments.config.resolve import build_model, load_config, resolve
from mntp.backbones import BACKBONES, Backbone, SummedContext, TransformerBackbone
from mntp.batch import TextStates, TokenBatch
from mntp.heads import HEADS, Head
from mntp.registry import ALLOWED
from mntp.seeding import make_generator
from tests.experiments.runs.support import MICRO, Shared, tiny_config

SYSTEMS = ("audio_ntp", "audio_mntp", "audio_mar")
FILE = '''
import torch
from torch import nn

from mntp.backbones import CausalTransformer
from mntp.heads import Head
from mntp.masking import MaskRatio
from mntp.systems import AudioMNTP


class PointHead(Head):
    """A unit normal around a linear function of the context."""

    solvers = ("exact",)
    held_out_name = "square"

    def __init__(self, token_dim: int, cond_dim: int, gain: float = 1.0) -> None:
        super().__init__(token_dim, cond_dim)
        self.gain, self.net = gain, nn.Linear(cond_dim, token_dim)

    def loss(self, z, x, generator, step=0):
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


class EitherOr(MaskRatio):
    """One of two ratios, each with probability one half. It has no density that could be drawn."""

    def __init__(self, low: float, high: float) -> None:
        self.ratios = (low, high)

    def sample(self, generator: torch.Generator) -> float:
        return self.ratios[int(torch.rand((), generator=generator) < 0.5)]

    def cdf(self, r: float) -> float:
        raise NotImplementedError


class LouderMNTP(AudioMNTP):
    """AudioMNTP whose loss is scaled.

    Args:
        gain: factor of the loss.
    """

    def __init__(self, *args, gain: float = 2.0, **settings) -> None:
        super().__init__(*args, **settings)
        self.gain = gain

    def loss(self, *args):
        return self.gain * super().loss(*args)
'''
POINT = {"class_path": "my_package.parts.PointHead", "init_args": {"gain": 0.5}}


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's package, for this process and those that it starts.

    Once imported it stays: jsonargparse looks at all subclasses of a class, and those have to be importable.
    """
    package = tmp_path_factory.mktemp("their_code") / "my_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "parts.py").write_text(FILE)
    paths = [str(package.parent), str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(package.parent)
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        patch.setenv(ALLOWED, "")
        yield package


def run(config: dict[str, Any]) -> Any:
    """Build, take a training step's gradient, measure and decode."""
    arguments = config["model"]["init_args"]
    arguments["decoding"]["sampling"], arguments["num_tokens"] = {"temperature": 0.9}, 8
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
@pytest.mark.parametrize("name", HEADS)
def test_every_system_takes_any_head_by_its_name(system: str, name: str) -> None:
    config = load_config(MICRO / f"{system}.yaml")
    config["model"]["init_args"]["head"] = {"class_path": name, "init_args": {"width": 8}}
    assert type(run(config).head) is HEADS[name]


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_takes_a_head_by_its_path(mine: Path, system: str) -> None:
    config = load_config(MICRO / f"{system}.yaml")
    config["model"]["init_args"]["head"] = POINT
    head = run(config).head
    assert (type(head).__name__, head.gain) == ("PointHead", 0.5)


@pytest.mark.parametrize("system", ["audio_ntp", "audio_mntp"])
def test_the_causal_systems_take_another_causal_backbone(mine: Path, system: str) -> None:
    config = load_config(MICRO / f"{system}.yaml")
    config["model"]["init_args"]["backbone"]["class_path"] = "my_package.parts.ScaledTransformer"
    config["model"]["init_args"]["backbone"]["init_args"]["factor"] = 3.0
    assert run(config).backbone.factor == 3.0


@pytest.mark.parametrize(
    ("part", "node", "message"),
    [
        ("head", POINT | {"init_args": {"gian": 0.5}}, r"'gian' is not a key that model.head accepts; .*'gain'\?"),
        ("head", {"class_path": "PointHeat"}, r"'PointHeat' is not a class that model.head accepts.*of your own class"),
        ("head", {"class_path": "my_package.parts.PointHeat"}, r"'my_package\.parts\.PointHeat' is not a class that"),
        ("head", {"class_path": "their_package.Head"}, r"'their_package' can't be imported .*PYTHONPATH"),
        ("mask_ratio", {"class_path": "my_package.parts.PointHead"}, r"my_package\.parts\.PointHead"),
    ],
)
def test_a_mistake_in_the_users_part_is_one_line(mine: Path, part: str, node: dict[str, Any], message: str) -> None:
    config = load_config(MICRO / "audio_mntp.yaml")
    config["model"]["init_args"][part] = node
    with pytest.raises(ValueError, match=message) as caught:
        resolve(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("my_package.parts.LoudMNTP", "'my_package.parts.LoudMNTP': there is no such class"),
        ("my_package.parts.PointHead", "'my_package.parts.PointHead': it is no subclass of SuiteModule"),
    ],
)
def test_a_system_that_there_is_not(mine: Path, path: str, message: str) -> None:
    config = load_config(MICRO / "audio_mntp.yaml")
    config["model"]["class_path"] = path
    with pytest.raises(ValueError, match=message):
        resolve(config)


def test_a_system_of_ones_own_resolves_with_its_own_arguments(mine: Path) -> None:
    config = load_config(MICRO / "audio_mntp.yaml")
    theirs = resolve(config)["model"]["init_args"]
    config["model"]["class_path"] = "my_package.parts.LouderMNTP"
    config["model"]["init_args"]["gain"] = 3.0
    resolved = resolve(config)
    assert resolve(resolved) == resolved == resolve(config, {})
    assert resolved["model"] == {"class_path": "my_package.parts.LouderMNTP", "init_args": theirs | {"gain": 3.0}}
    assert build_model(resolved).gain == 3.0
    config["model"]["init_args"]["gian"] = config["model"]["init_args"].pop("gain")
    with pytest.raises(ValueError, match=r"'gian' is not a key that model accepts; did you mean 'gain'\?"):
        resolve(config)


MATRIX = """\
format: 1
scales:
  tiny: {configs: configs, eval: {num_clips: 4, batch_size: 4}}
axes:
  system: {mine: {config: mine}}
  head:
    point:
      set:
        model.init_args.head: {class_path: my_package.parts.PointHead, init_args: {gain: 0.5}}
        model.init_args.decoding.sampling: {temperature: 0.9}
  schedule:
    either_or:
      set: {model.init_args.mask_ratio: {class_path: my_package.parts.EitherOr, init_args: {low: 0.2, high: 0.8}}}
tables:
  mine:
    title: a package of one's own
    baseline: all
    default_rows: [all]
    rows: {all: {axes: {system: mine, head: point, schedule: either_or}, description: own system head and schedule}}
reference:
  like: {table: mine, row: all}
  rows: {}
"""


@pytest.mark.slow
def test_own_system_head_and_schedule_through_plan_run_resume_and_tables(
    mine: Path, tmp_path: Path, shared: Shared, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(shared[0])
    config["model"]["class_path"] = "my_package.parts.LouderMNTP"
    config["trainer"]["max_steps"] = 6
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "ablations.yaml").write_text(MATRIX)
    monkeypatch.chdir(tmp_path)
    options = PlanOptions(judges=shared[0], scale="tiny")
    assert ablate.plan(options) == 0
    assert "LouderMNTP" in capsys.readouterr().out
    assert ablate.run(options) == 0, capsys.readouterr().out
    (run_dir,) = (tmp_path / "runs").iterdir()
    scores = (tmp_path / "results/tiny/results.csv").read_text()
    assert "LouderMNTP" in scores and "fd_judge" in scores
    metrics = next(run_dir.glob("evals/*/metrics.json"))
    before = json.loads(metrics.read_text())
    for done in (metrics, run_dir / "held_out.safetensors", run_dir / "checkpoints" / "final.ckpt"):
        done.unlink()  # as if it had been killed at its last step; it goes on from last.ckpt
    assert ablate.run(options) == 0, capsys.readouterr().out
    assert json.loads(metrics.read_text()) == before


def test_a_matrix_takes_the_new_head_as_one_row(mine: Path, tmp_path: Path) -> None:
    repository = Path(__file__).parents[3]
    row = """
      point:
        like: {table: table3, row: G}
        set: {model.init_args.head: {class_path: my_package.parts.PointHead, init_args: {gain: 0.5}}}
        description: a unit normal
"""
    mixture = "        description: a mixture of Gaussians (GIVT)\n"
    text = (repository / "ablations.yaml").read_text()
    assert mixture in text
    path = tmp_path / "ablations.yaml"
    path.write_text(text.replace(mixture, mixture + row.strip("\n") + "\n"))
    (tmp_path / "experiments").symlink_to(repository / "experiments")
    cells = {(cell.table, cell.row.id): cell.config for cell in expand(load_matrix(path), "micro", [0])}
    head = run(copy.deepcopy(cells["heads", "point"])).head
    assert type(head) is importlib.import_module("my_package.parts").PointHead


def test_registries_hold_every_class_of_their_family() -> None:
    without_a_name = {Backbone, TransformerBackbone, SummedContext}  # a base, and a sum that is made of two parts

    def concrete(cls: type) -> set[type]:
        own = {cls} if not getattr(cls, "__abstractmethods__", None) and cls not in without_a_name else set()
        return own.union(*(concrete(sub) for sub in cls.__subclasses__()))

    for family, registry in ((Head, HEADS), (Backbone, BACKBONES)):
        ours = {cls for cls in concrete(family) if cls.__module__.startswith("mntp.")}
        assert ours == set(registry.values())
        assert all(cls.__name__ == name for name, cls in registry.items())
