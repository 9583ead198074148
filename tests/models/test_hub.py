"""Finding weights: what is here, what is damaged, and what to do where there is no network."""

import functools
import hashlib
import http.server
import os
import subprocess
import sys
import threading
import time

import pytest
from huggingface_hub import constants

from clipbench.core import paths
from clipbench.core.errors import UserError
from clipbench.models import hub

CLOSED = "http://127.0.0.1:9"  # nobody listens on the discard port


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


MODELS = {
    "CLIP(arch='ViT-B-32-quickgelu', pretrained='openai')": (
        "vit_base_patch32_clip_224.openai/open_clip_model.safetensors",
        "hf download timm/vit_base_patch32_clip_224.openai open_clip_model.safetensors",
    ),
    "ResNet(arch='resnet50', pretrained='IMAGENET1K_V2')": (
        "resnet50-11ad3fa6.pth",
        "curl -LO https://download.pytorch.org/models/resnet50-11ad3fa6.pth",
    ),
    "Timm(arch='resnet50', pretrained='default')": (
        "resnet50.a1_in1k/model.safetensors",
        "hf download timm/resnet50.a1_in1k model.safetensors",
    ),
}


def test_without_network_one_line_says_which_file_how_and_where(tmp_path):
    """In a process of its own, whose network is a port that nobody listens on."""
    code = (
        "import time\n"
        "from clipbench.core.errors import UserError\n"
        "from clipbench.models.clip import CLIP\n"
        "from clipbench.models.resnet import ResNet\n"
        "from clipbench.models.timm import Timm\n"
        f"for model in {list(MODELS)}:\n"
        "    started = time.monotonic()\n"
        "    try: eval(model)\n"
        "    except UserError as refused: print(time.monotonic() - started, refused)"
    )
    closed = {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": CLOSED, "https_proxy": CLOSED}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=paths.ROOT,
        check=True,
        env={**os.environ, **closed, "OMP_NUM_THREADS": "1"},
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(MODELS)
    for line, (file, command) in zip(lines, MODELS.values(), strict=True):
        seconds, _, said = line.partition(" ")
        assert float(seconds) < 30
        assert said.startswith("no weights: ")
        assert command in said
        place = tmp_path / "data" / "weights" / file
        assert f"put it at {place} or set model.pretrained=" in said


def test_offline_mode_does_not_try(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        hub.from_hub("lab/net", ["model.safetensors"])


class Silent(http.server.BaseHTTPRequestHandler):
    """A host that takes calls and never answers, as behind a firewall that drops packets."""

    def do_HEAD(self):
        time.sleep(60)


def test_a_host_that_never_answers_costs_no_more_than_its_timeout(monkeypatch):
    monkeypatch.setattr(hub, "_CONNECT", 1.0)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    started = time.monotonic()
    with pytest.raises(UserError, match=r"cannot be fetched \(timed out\)"):
        hub.from_url(f"http://127.0.0.1:{server.server_port}/net-01234567.pth")
    assert time.monotonic() - started < 5
    server.shutdown()


@pytest.fixture
def server(tmp_path):
    """A folder served over HTTP, and its address."""
    (tmp_path / "served").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def served(tmp_path, content=b"weights" * 999):
    name = f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (tmp_path / "served" / name).write_bytes(content)
    return name


def test_a_download_is_checked_and_kept(tmp_path, server):
    name = served(tmp_path)
    path = hub.from_url(f"{server}/{name}")
    assert path == tmp_path / "torch" / "hub" / "checkpoints" / name
    (tmp_path / "served" / name).unlink()
    assert hub.from_url(f"{server}/{name}") == path


def test_a_download_that_is_not_what_its_name_says_leaves_nothing(tmp_path, server):
    name = served(tmp_path)
    (tmp_path / "served" / name).write_bytes(b"cut off")
    with pytest.raises(UserError, match="invalid hash value"):
        hub.from_url(f"{server}/{name}")
    assert list((tmp_path / "torch" / "hub" / "checkpoints").iterdir()) == []


def test_a_poisoned_cache_is_noticed_each_time(tmp_path, server):
    name = served(tmp_path)
    hub.from_url(f"{server}/{name}").write_bytes(b"something else")
    with pytest.raises(UserError, match=r"is not what its name says .* Delete it"):
        hub.from_url(f"{server}/{name}")


def test_the_hubs_cache_is_used_and_checked_each_time(tmp_path, monkeypatch):
    """A file as the hub's client stores it: a link to a blob that is named by its sha256."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    content = b"weights" * 999
    repo = tmp_path / "hub" / "models--lab--net"
    blob = repo / "blobs" / hashlib.sha256(content).hexdigest()
    link = repo / "snapshots" / "0123abc" / "model.safetensors"
    for folder in (blob.parent, link.parent, repo / "refs"):
        folder.mkdir(parents=True)
    (repo / "refs" / "main").write_text("0123abc")
    blob.write_bytes(content)
    link.symlink_to(blob)
    assert hub.from_hub("lab/net", ["model.safetensors"]) == link
    assert hub.from_hub("lab/net", ["absent.safetensors", "model.safetensors"]) == link
    blob.write_bytes(b"something else")
    with pytest.raises(UserError, match="is not what its name says"):
        hub.from_hub("lab/net", ["model.safetensors"])


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as its client asks for one file: head, then body, perhaps cut off."""

    content, sent = b"weights" * 999, 1.0

    def do_HEAD(self):
        found = self.path == "/lab/net/resolve/main/model.safetensors"
        self.send_response(200 if found else 404)
        self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0123abc")
        self.send_header("Content-Length", str(len(self.content) if found else 0))
        if not found:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()
        return found

    def do_GET(self):
        if self.do_HEAD():
            self.wfile.write(self.content[: int(len(self.content) * self.sent)])

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("sent", [1.0, 0.3])
def test_a_download_from_the_hub_is_whole_or_refused(tmp_path, monkeypatch, sent):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(Hub, "sent", sent)
    url = f"http://127.0.0.1:{server.server_port}"
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    names = ["absent.safetensors", "model.safetensors"]
    if sent == 1.0:
        path = hub.from_hub("lab/net", names)
        assert path.read_bytes() == Hub.content
        server.shutdown()
        assert hub.from_hub("lab/net", names) == path
    else:
        with pytest.raises(UserError, match="cannot be fetched"):
            hub.from_hub("lab/net", names)
        assert not list((tmp_path / "hub").rglob("model.safetensors"))
        server.shutdown()


def test_names_that_are_no_files():
    assert hub.local("openai") is None
    assert hub.local("hf-hub:lab/net.pth") is None
    with pytest.raises(UserError, match="Use hf-hub:org/name"):
        hub.from_hub("net", ["model.safetensors"])
    with pytest.raises(UserError, match="no hash in its name"):
        hub.from_url("https://example.org/net.pth")


def test_a_file_in_the_working_folder_is_not_taken_for_a_tag(tmp_path, monkeypatch):
    (tmp_path / "openai").write_text("a note")
    monkeypatch.chdir(tmp_path)
    assert hub.local("openai") is None


def test_a_repository_of_another_library_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["CLIPModel"]}')
    with pytest.raises(UserError, match="has no architecture"):
        hub.description(tmp_path / "config.json", "architecture")


def test_a_package_that_is_not_installed_names_its_extra():
    with pytest.raises(UserError, match=r"pip install 'clipbench\[some_extra\]'"):
        hub.local("pip:no_such_package_at_all", extra="some_extra")
