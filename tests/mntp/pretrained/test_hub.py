"""Where a public model is looked for, and that a hub out of reach is said at once and in one line."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from huggingface_hub import constants

from mntp import TextToAudio
from mntp.pretrained import hub
from mntp.pretrained.hub import checkpoint_folder
from tests.models import tiny_model

SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, offline, and a folder of its own to run in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def online(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return folder


def put_into_cache(cache: Path, name: str, *files: str) -> Path:
    repository = cache / f"models--{name.replace('/', '--')}"
    fill(repository / "refs", "main")
    (repository / "refs" / "main").write_text(SHA)
    return fill(repository / "snapshots" / SHA, *files)


def test_a_local_folder_comes_first(tmp_path: Path, cache: Path) -> None:
    put_into_cache(cache, "owner/name", "config.json", "model.safetensors")
    local = fill(tmp_path / "owner" / "name", "config.json", "pytorch_model.bin", "part/tokenizer.json")
    assert checkpoint_folder("owner/name").resolve() == local
    assert checkpoint_folder(str(local)) == local
    assert checkpoint_folder(str(local), "tokenizer", "part") == local / "part"


def test_the_cache_is_enough(cache: Path) -> None:
    snapshot = put_into_cache(cache, "owner/name", "vae/config.json", "vae/diffusion_pytorch_model.bin")
    assert checkpoint_folder("owner/name", subfolder="vae") == snapshot / "vae"
    bare = put_into_cache(cache, "roberta-base", "vocab.json", "merges.txt")
    assert checkpoint_folder("roberta-base", "tokenizer") == bare


def test_a_trained_system_comes_by_a_name(cache: Path) -> None:
    snapshot = put_into_cache(cache, "owner/name")
    model = tiny_model()
    model.save_pretrained(snapshot)
    again = TextToAudio.from_pretrained("owner/name", device="cpu")
    assert again.generate(["rain"])[0].equal(model.generate(["rain"])[0])
    (snapshot / "model.safetensors").rename(snapshot / "pytorch_model.bin")  # a public model may lie so, a system not
    assert checkpoint_folder("owner/name") == snapshot
    with pytest.raises(ValueError, match="owner/name: no such folder, not in the cache"):
        TextToAudio.from_pretrained("owner/name")


def test_a_cache_without_the_weights_is_not(cache: Path) -> None:
    put_into_cache(cache, "owner/name", "config.json", "vae/config.json", "vocoder/model.safetensors")
    for subfolder in ("", "vae", "vocoder"):
        with pytest.raises(ValueError, match=r"owner/name: no such folder, not in the cache .*offline mode is enabled"):
            checkpoint_folder("owner/name", subfolder=subfolder)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("empty", "empty: no config.json there; expected empty to be a folder in the hub's layout"),
        ("file.pt", "file.pt: no such folder; expected file.pt to be a folder in the hub's layout"),
        ("/nowhere/at/all", "/nowhere/at/all: no such folder; expected a folder in the hub's layout or a name"),
        ("", "no config.json there"),
        ("a/b/c", "a/b/c: no such folder; expected"),
        ("../x", "../x: no such folder; expected"),
    ],
)
def test_what_is_no_checkpoint_is_said(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.pt").touch()
    with pytest.raises(ValueError, match=message) as caught:
        checkpoint_folder(path)
    assert "\n" not in str(caught.value)


def refused() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def check_unreachable(cache: Path) -> None:
    began = time.monotonic()
    with pytest.raises(ValueError) as caught:
        checkpoint_folder("cvssp/audioldm-s-full-v2", subfolder="vae")
    assert time.monotonic() - began < 3
    message = str(caught.value)
    assert "\n" not in message
    for part in ("cvssp/audioldm-s-full-v2: ", str(cache), "./cvssp/audioldm-s-full-v2", "HF_HUB_CACHE"):
        assert part in message


def test_a_hub_that_refuses_is_said_at_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    online(monkeypatch, refused())
    check_unreachable(cache)


def test_a_hub_that_does_not_answer_is_not_waited_for(
    cache: Path, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    monkeypatch.setattr(hub, "TIMEOUT_SECONDS", 0.3)
    online(monkeypatch, silent)
    check_unreachable(cache)


def test_without_a_network_allowed_it_is_said_at_once(cache: Path) -> None:
    check_unreachable(cache)


class FakeHub(BaseHTTPRequestHandler):
    """Serves one repository as the hub does, and keeps a list of what was fetched."""

    files: ClassVar[dict[str, bytes]] = {}
    fetched: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        name = path.removeprefix(f"/owner/name/resolve/{SHA}/")
        if path in ("/api/models/owner/name", "/api/models/owner/name/revision/main"):
            self._json({"id": "owner/name", "sha": SHA, "siblings": [{"rfilename": name} for name in self.files]})
        elif path.startswith("/api/models/owner/name/tree/"):
            self._json([{"type": "file", "path": k, "size": len(v), "oid": f"{k}0"} for k, v in self.files.items()])
        elif name in self.files:
            if self.command == "GET":
                self.fetched.append(name)
            self._answer(200, self.files[name], {"ETag": f'"{name}0"', "X-Repo-Commit": SHA})
        else:
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _json(self, content: object) -> None:
        self._answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeHub]]:
    FakeHub.fetched.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    online(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    yield FakeHub
    server.shutdown()
    server.server_close()


def test_only_what_is_needed_is_fetched_and_then_kept(
    cache: Path, fake_hub: type[FakeHub], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["README.md", "vae/config.json", "vae/diffusion_pytorch_model.safetensors", "unet/config.json"]
    twice = ["vae/diffusion_pytorch_model.bin", "vae/diffusion_pytorch_model.fp16.safetensors"]
    monkeypatch.setattr(fake_hub, "files", {name: name.encode() for name in (*names, *twice)})
    folder = checkpoint_folder("owner/name", subfolder="vae")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "config.json": "vae/config.json",
        "diffusion_pytorch_model.safetensors": "vae/diffusion_pytorch_model.safetensors",
    }
    assert sorted(fake_hub.fetched) == ["vae/config.json", "vae/diffusion_pytorch_model.safetensors"]
    fake_hub.fetched.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert checkpoint_folder("owner/name", subfolder="vae") == folder
    assert not fake_hub.fetched


def test_shards_are_fetched_with_their_index(fake_hub: type[FakeHub], monkeypatch: pytest.MonkeyPatch) -> None:
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    names = ["config.json", "model.safetensors.index.json", *shards, "pytorch_model.bin", "tokenizer.json", "onnx/a"]
    monkeypatch.setattr(fake_hub, "files", {name: name.encode() for name in names})
    folder = checkpoint_folder("owner/name")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", *shards, "model.safetensors.index.json"]
    checkpoint_folder("owner/name", "tokenizer")
    assert (folder / "tokenizer.json").is_file()
    assert not (folder / "pytorch_model.bin").exists()


def test_what_the_hub_does_not_have(fake_hub: type[FakeHub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_hub, "files", {"config.json": b"", "vae/config.json": b""})
    with pytest.raises(ValueError, match=r"owner/name on the hub: no model.safetensors there .* in vae"):
        checkpoint_folder("owner/name", subfolder="vae")
    with pytest.raises(ValueError, match=r"owner/other: .*\(it has no such model, or a private one\)"):
        checkpoint_folder("owner/other")
