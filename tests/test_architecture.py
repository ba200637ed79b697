"""Who may import whom, and that importing does nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("mntp", "data_modules", "callbacks", "experiments")
MAY_IMPORT = {
    "mntp": set(),
    "data_modules": {"mntp"},
    "callbacks": {"mntp"},
    "experiments": {"mntp", "data_modules", "callbacks"},
}
# Inside mntp, from the bottom up; a part imports only from lines above its own (and from its own).
LAYERS = (
    {"files", "checkpoints", "seeding", "layers", "registry", "batch", "hub"},
    {"audio", "frozen", "laion_clap"},
    {"masking", "guidance", "conditioning", "tokenizers", "text", "metrics"},
    {"backbones", "heads"},
    {"pretrained"},
    {"samplers"},
    {"systems"},
    {"model_folder", "streaming"},
    {"text_to_audio"},
)


def imports(path: Path) -> set[str]:
    """Modules that a file imports, by full name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_stands_below_them(package: str) -> None:
    for path in files(package):
        tops = {name.partition(".")[0] for name in imports(path)} & set(PACKAGES)
        assert tops <= MAY_IMPORT[package] | {package}, f"{path} imports {tops}"


def test_the_method_is_layered_and_backbones_and_heads_do_not_know_each_other() -> None:
    level = {part: number for number, parts in enumerate(LAYERS) for part in parts}
    for path in files("mntp"):
        part = path.relative_to(ROOT / "mntp").parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        used = {name.split(".")[1] for name in imports(path) if name.startswith("mntp.")} - {part}
        assert all(level[other] < level[part] or {other, part} <= LAYERS[2] for other in used), f"{path}: {used}"


def test_nothing_unsafe_or_left_over() -> None:
    for package in PACKAGES:
        for path in files(package):
            text = path.read_text()
            assert "yaml.load(" not in text, path
            assert "torch.load(" not in text or "weights_only=True" in text, path
            for word in ("NotImplementedError", "TODO", "FIXME", "except Exception", "except:"):
                assert word not in text, f"{path}: {word}"


def test_importing_everything_writes_nothing_and_opens_no_socket(tmp_path: Path) -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for package in PACKAGES
        for path in files(package)
        if path.name != "__main__.py"
    ]
    code = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise RuntimeError('a socket at import')\n"
        "socket.socket.connect = refuse\n"
        f"import importlib\nfor name in {modules!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_libraries_of_public_models_are_imported_only_with_a_model(tmp_path: Path) -> None:
    """Lightning's torchmetrics imports the top of transformers where it is installed; no model and no diffusers."""
    code = (
        "import sys\n"
        "from mntp.text import HashedText\n"
        "from mntp.tokenizers import MelTokenizer\n"
        "HashedText(), MelTokenizer()\n"
        "import experiments.config.lightning_cli, experiments.runs.run\n"
        "import experiments.commands.generate, experiments.commands.prepare\n"
        "heavy = ('diffusers', 'transformers.models.clap', 'transformers.models.t5', 'transformers.modeling_utils')\n"
        "print(sorted(name for name in heavy if name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
    for path in (path for package in PACKAGES for path in files(package)):
        top = {node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)}
        names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in top if isinstance(node, ast.ImportFrom)}
        lazily = {"transformers", "diffusers", "huggingface_hub", "laion_clap"}
        assert not lazily & {name.partition(".")[0] for name in names}, path
