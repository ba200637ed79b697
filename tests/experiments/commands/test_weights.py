"""`mntp weights` against a server on this machine: whole, broken off, altered, without ranges, absent."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

import experiments.commands.weights
import mntp.pretrained.catalogue
from experiments.commands.weights import check, fetch, list_weights
from mntp.io import integrity
from mntp.pretrained.catalogue import KNOWN, Weights, find_weights

CONTENT = os.urandom(3_000_000)


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT; the path says how. What was asked is kept."""

    asked: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        way, wanted = self.path.strip("/"), self.headers["Range"]
        self.asked.append(wanted)
        if way == "absent":
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and way != "no_ranges" else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        body = CONTENT[start:] if way != "altered" else bytes(len(CONTENT) - start)
        body = body[:-1] if way == "other_size" else body
        self.send_response(206 if start else 200)
        if way != "no_length":
            self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        self.wfile.write(body[: 1_000_000 if way == "broken" else None])

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Takes it calmly when a client hangs up."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch, server: str) -> dict[str, Weights]:
    """One file in place of the public ones, by the name of the way that it is served."""
    Handler.asked.clear()
    whole = Weights("net.pth", "", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), "CC0", "a test")
    ways = ("whole", "broken", "altered", "no_ranges", "no_length", "other_size", "absent")
    table = {way: replace(whole, url=f"{server}/{way}") for way in ways}
    table["nowhere"] = replace(whole, url="http://127.0.0.1:9/net.pth")
    table["about"] = replace(whole, url=f"{server}/whole", num_bytes=4_000_000, exact=False)
    for module in (experiments.commands.weights, mntp.pretrained.catalogue):
        monkeypatch.setattr(module, "KNOWN", table)
    return table


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".net.pth.lock", integrity.VERIFIED}


@pytest.mark.parametrize("way", ["whole", "no_length", "about"])
def test_a_download_is_announced_verified_and_remembered(
    tmp_path: Path,
    known: dict[str, Weights],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    fetch([way], tmp_path)
    assert (tmp_path / "net.pth").read_bytes() == CONTENT
    assert left(tmp_path) == {"net.pth"}
    said = capsys.readouterr().out
    size = "about 4 MB" if way == "about" else "3.0 MB"
    assert said.startswith(f"{way}: net.pth, {size}, CC0, from {known[way].url}\n")
    monkeypatch.setattr(integrity, "_check_content", None)  # whoever reads it again fails
    assert find_weights(tmp_path, way) == tmp_path / "net.pth"
    asked = len(Handler.asked)
    fetch([way], tmp_path)
    assert len(Handler.asked) == asked and "already there" in capsys.readouterr().out


def test_a_broken_download_goes_on_where_it_ended(tmp_path: Path, known: dict[str, Weights]) -> None:
    with pytest.raises(ValueError, match=r"1000000 of 3000000 bytes|broke off") as caught:
        fetch(["broken"], tmp_path)
    assert known["broken"].url in str(caught.value)
    assert f"to go on: mntp weights fetch broken --folder {tmp_path}" in str(caught.value)
    assert left(tmp_path) == {".net.pth.part"}
    fetch(["whole"], tmp_path)
    assert Handler.asked == [None, "bytes=1000000-"]
    assert (tmp_path / "net.pth").read_bytes() == CONTENT
    assert left(tmp_path) == {"net.pth"}


def test_a_server_without_ranges_starts_again(tmp_path: Path, known: dict[str, Weights]) -> None:
    (tmp_path / ".net.pth.part").write_bytes(CONTENT[:1000])
    fetch(["no_ranges"], tmp_path)
    assert Handler.asked == ["bytes=1000-"]
    assert (tmp_path / "net.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("start", [0, 1000])
def test_an_altered_download_is_thrown_away(tmp_path: Path, known: dict[str, Weights], start: int) -> None:
    (tmp_path / ".net.pth.part").write_bytes(CONTENT[:start])
    with pytest.raises(ValueError, match=r"altered, sha256 .*it is deleted; try again: mntp weights fetch altered"):
        fetch(["altered"], tmp_path)
    assert not left(tmp_path)


def test_a_spoilt_beginning_is_thrown_away(tmp_path: Path, known: dict[str, Weights]) -> None:
    for content in (bytes(1000), bytes(len(CONTENT)), bytes(len(CONTENT) + 5)):
        (tmp_path / ".net.pth.part").write_bytes(content)
        if len(content) <= len(CONTENT):
            with pytest.raises(ValueError, match="altered"):
                fetch(["whole"], tmp_path)
        fetch(["whole"], tmp_path)
        assert (tmp_path / "net.pth").read_bytes() == CONTENT
        (tmp_path / "net.pth").unlink()


def test_what_stopped_before_it_was_checked_is_not_asked_for_again(tmp_path: Path, known: dict[str, Weights]) -> None:
    (tmp_path / ".net.pth.part").write_bytes(CONTENT)
    fetch(["whole"], tmp_path)
    assert not Handler.asked and (tmp_path / "net.pth").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("absent", "answers 404"),
        ("other_size", "offers 2999999 bytes, expected 3000000"),
        ("nowhere", "no connection"),
    ],
)
def test_a_server_that_has_not_the_file_is_named(
    tmp_path: Path, known: dict[str, Weights], way: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        fetch([way], tmp_path)
    assert str(caught.value).startswith(known[way].url)
    assert not left(tmp_path)


def test_a_part_longer_than_the_file_is_thrown_away(tmp_path: Path, known: dict[str, Weights]) -> None:
    (tmp_path / ".net.pth.part").write_bytes(bytes(len(CONTENT) + 1))
    with pytest.raises(ValueError, match="answers 416"):
        fetch(["about"], tmp_path)
    fetch(["about"], tmp_path)
    assert (tmp_path / "net.pth").read_bytes() == CONTENT


def test_a_damaged_file_is_replaced_only_by_a_whole_one(tmp_path: Path, known: dict[str, Weights]) -> None:
    (tmp_path / "net.pth").write_bytes(b"old")
    with pytest.raises(ValueError, match="altered"):
        fetch(["altered"], tmp_path)
    assert (tmp_path / "net.pth").read_bytes() == b"old"
    fetch(["whole"], tmp_path)
    assert (tmp_path / "net.pth").read_bytes() == CONTENT


def test_an_unknown_name_stops_everything_before_anything_is_asked(tmp_path: Path, known: dict[str, Weights]) -> None:
    for call in (lambda: fetch(["whole", "hole"], tmp_path), lambda: find_weights(tmp_path, "hole")):
        with pytest.raises(ValueError, match=r"unknown weights 'hole'; known: whole, .*did you mean 'whole'\?"):
            call()
    assert not Handler.asked and not left(tmp_path)


def test_a_missing_file_is_named_with_source_size_licence_and_command(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Cnn14_16k_mAP=0\.438\.pth: missing") as caught:
        find_weights(tmp_path, "cnn14_16k")
    for part in ("358.7 MB", "CC BY 4.0", "https://zenodo.org/record/3987831", "mntp weights fetch cnn14_16k --folder"):
        assert part in str(caught.value)
    with pytest.raises(ValueError, match=r"mntp weights fetch vggish$"):
        find_weights(Path("weights"), "vggish", checked=False)


def test_weights_are_checked_when_they_are_looked_for(tmp_path: Path, known: dict[str, Weights]) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match=r"net\.pth: truncated or altered, 2999999 bytes, expected 3000000; delete it"):
        find_weights(tmp_path, "whole")
    path.write_bytes(CONTENT)
    assert find_weights(tmp_path, "whole") == path
    path.write_bytes(bytes([CONTENT[0] ^ 1]) + CONTENT[1:])
    assert find_weights(tmp_path, "whole", checked=False) == path
    with pytest.raises(ValueError, match=r"net\.pth: altered, sha256"):
        find_weights(tmp_path, "whole")


def test_check_reads_anew_and_names_all_that_is_wrong(
    tmp_path: Path, known: dict[str, Weights], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {name: replace(known["whole"], file=f"{name}.pth") for name in ("good", "cut", "gone", "changed")}
    for module in (experiments.commands.weights, mntp.pretrained.catalogue):
        monkeypatch.setattr(module, "KNOWN", table)
    (tmp_path / "good.pth").write_bytes(CONTENT)
    (tmp_path / "changed.pth").write_bytes(CONTENT)
    check(tmp_path)
    # Altered behind the memory's back: same size, same time.
    times = (tmp_path / "changed.pth").stat()
    (tmp_path / "changed.pth").write_bytes(bytes(len(CONTENT)))
    os.utime(tmp_path / "changed.pth", ns=(times.st_atime_ns, times.st_mtime_ns))
    (tmp_path / "cut.pth").write_bytes(CONTENT[:5])
    capsys.readouterr()
    with pytest.raises(ValueError, match=r"cut\.pth: truncated .*; .*changed\.pth: altered"):
        check(tmp_path)
    captured = capsys.readouterr()
    states = [line.split(maxsplit=1) for line in captured.out.splitlines()]
    assert states == [["good", "whole and unaltered"], ["cut", "damaged"], ["gone", "absent"], ["changed", "damaged"]]
    assert "checking good.pth: 3.0 MB ..." in captured.err


def test_the_list_says_what_is_there(
    tmp_path: Path, known: dict[str, Weights], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.pth").write_bytes(CONTENT)
    list_weights(tmp_path)
    said = capsys.readouterr().out
    assert "present" in said and known["whole"].url in said
    (tmp_path / "net.pth").write_bytes(b"cut")
    list_weights(tmp_path)
    assert "wrong size" in capsys.readouterr().out
    assert not Handler.asked


def test_the_table_of_public_files_is_well_formed() -> None:
    assert len({weights.file for weights in KNOWN.values()}) == len(KNOWN)
    for weights in KNOWN.values():
        assert weights.url.startswith("https://") and weights.url.endswith(weights.file.replace("=", "%3D"))
        assert len(weights.sha256) == 64 and int(weights.sha256, 16) and weights.licence and weights.purpose
    assert KNOWN["vggish"].sha256.startswith("10086976")  # its file's name


def test_the_commands_need_neither_torch_nor_transformers() -> None:
    code = "import sys, experiments.main, experiments.commands.weights\n"
    code += "print(*({'torch', 'transformers'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
