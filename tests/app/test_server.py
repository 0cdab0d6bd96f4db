"""What the server gives out, and what it does not: its own files alone, to those who know their names."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastsam3d.app.runs.results import new_folder
from fastsam3d.app.server.server import build_app, result_file
from fastsam3d.app.server.upload_store import safe_name
from fastsam3d.app.visitors.shared import Studio
from fastsam3d.cli.commands.demo import main, options_from
from fastsam3d.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio")
CONFIG = Path(__file__).resolve().parents[2] / "configs"
SECRET = "nobody may read this"


@pytest.fixture
def client(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    pytest.importorskip("gradio", reason="the page needs Gradio (extra demo)")
    from starlette.testclient import TestClient

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    (tmp_path / "secret.txt").write_text(SECRET)
    with TestClient(build_app(studio), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def stored(studio: Studio) -> Path:
    folder = new_folder(studio.folder) / "result" / "run"
    folder.mkdir(parents=True)
    (folder / "object.glb").write_bytes(b"glTF")
    return folder / "object.glb"


def test_the_page_needs_nothing_from_elsewhere(client) -> None:
    page = client.get("/")
    assert page.status_code == 200 and "fastsam3d" in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert client.get("/healthz").json() == {"status": "ok"}


def test_result_files_are_served_and_nothing_beside_them(client, stored: Path, studio: Studio) -> None:
    address = f"/results/{stored.relative_to(studio.folder).as_posix()}"
    answer = client.get(address)
    assert answer.content == b"glTF" and answer.headers["content-type"] == "model/gltf-binary"
    for wrong in (
        "/results/../secret.txt",
        "/results/%2e%2e/secret.txt",
        "/results/..%2f..%2fsecret.txt",
        f"/results/{stored.parts[-4]}/../../secret.txt",
        f"/results/{stored.parts[-4]}/%2e%2e/%2e%2e/secret.txt",
        "/results//etc/passwd",
        "/results/a/b/../../../secret.txt",
        address.rpartition("/")[0],
        "/results/",
    ):
        answer = client.get(wrong)
        assert SECRET not in answer.text and "root:" not in answer.text
        assert answer.status_code in (403, 404) or "fastsam3d" in answer.text  # the page itself, at best


def test_result_file_follows_no_link_and_takes_no_step_up(stored: Path, studio: Studio, tmp_path: Path) -> None:
    outside = tmp_path / "secret.txt"
    outside.write_text(SECRET)
    below = stored.relative_to(studio.folder).as_posix()
    assert result_file(studio.folder, below) == stored.resolve()
    (stored.parent / "link.txt").symlink_to(outside)
    (stored.parent / "up").symlink_to(tmp_path)
    folder = below.rpartition("/")[0]
    for path in (
        f"{folder}/link.txt",
        f"{folder}/../../../../secret.txt",
        f"{folder.rpartition('/')[0]}/up/secret.txt",
        f"{folder}\\..\\..\\secret.txt",
        f"{folder}/object.glb\0.png",
        "",
        "..",
        str(outside),
        below.partition("/")[0],
    ):
        assert result_file(studio.folder, path) is None, path


def test_gradio_gives_no_file_of_this_machine(client, tmp_path: Path, studio: Studio, stored: Path) -> None:
    secret = tmp_path / "secret.txt"
    root = Path(__file__).resolve().parents[2]
    for path in (
        secret,
        "/etc/passwd",
        root / "pyproject.toml",
        root / "fastsam3d" / "__init__.py",
        f"{tmp_path}/uploads/../secret.txt",
        stored,
    ):
        for route in (f"/gradio_api/file={path}", f"/file={path}", f"/gradio_api/file/{path}"):
            answer = client.get(route)
            assert SECRET not in answer.text and "root:" not in answer.text and "[project]" not in answer.text
            assert b"glTF" not in answer.content
    assert client.post("/gradio_api/upload", files={"files": b"x"}).status_code == 403
    for address in ("http://127.0.0.1:1/x", "HTTP://127.0.0.1:1/x", "https://example.org/"):
        assert client.get(f"/gradio_api/file={address}").status_code == 403
    assert client.get("/gradio_api/proxy=https://example.org/").status_code == 403


def test_events_cannot_name_files_of_this_machine(client, tmp_path: Path, studio: Studio) -> None:
    """Gradio opens the file that an event names; what comes in is the visitor's to write, so none may be taken."""
    secret = {"path": str(tmp_path / "secret.txt"), "meta": {"_type": "gradio.FileData"}}
    elsewhere = {"path": "http://127.0.0.1:1/x.png", "meta": {"_type": "gradio.FileData"}}
    config = client.get("/config").json()
    assert len(config["dependencies"]) > 5
    for dependency in config["dependencies"]:
        if not dependency["backend_fn"]:
            continue
        for value in (secret, elsewhere) if dependency["inputs"] else ():
            payload = {"data": [value] * len(dependency["inputs"]), "fn_index": dependency["id"], "session_hash": "v"}
            _last_event(client, payload)
    copies = [path for path in (tmp_path / "uploads").rglob("*") if path.is_file()]
    assert copies == []


def test_actions_take_uploads_by_token_alone(client, tmp_path: Path) -> None:
    from PIL import Image

    picture = tmp_path / "private picture.png"
    Image.new("RGB", (40, 40), "red").save(picture)
    config = client.get("/config").json()
    marking = next(item for item in config["dependencies"] if _listens(config, item, "select", "marker"))

    def act(action: dict) -> str:
        payload = {"data": [], "fn_index": marking["id"], "session_hash": "visitor", "event_data": action}
        return _last_event(client, payload)

    for token in (str(picture), "../private picture.png", None, 7, ["x"]):
        answer = act({"action": "picture", "token": token})
        assert "data:image" not in answer and "The upload is gone" in answer
    file = {"path": str(picture), "meta": {"_type": "gradio.FileData"}}
    assert "data:image" not in act({"action": "picture", "token": file})  # Gradio itself refuses
    headers = {"x-file-name": "..%2F..%2Fmy%20picture.png"}
    token = client.post("/uploads", content=picture.read_bytes(), headers=headers).json()["token"]
    assert "data:image/jpeg" in act({"action": "picture", "token": token})
    assert "The upload is gone" in act({"action": "picture", "token": token})  # each is handed out once
    token = client.post("/uploads", content=b"nonsense", headers={"x-file-name": "<b>.png"}).json()["token"]
    answer = act({"action": "picture", "token": token})
    assert "is no picture that can be read" in answer and "<b>" not in answer and str(tmp_path) not in answer


def _last_event(client, payload: dict) -> str:
    joined = client.post("/gradio_api/queue/join", json={"event_data": None} | payload)
    if joined.status_code != 200:
        return joined.text
    with client.stream("GET", f"/gradio_api/queue/data?session_hash={payload['session_hash']}") as stream:
        for line in stream.iter_lines():
            if "process_completed" in line:
                return line
    return ""


def _listens(config: dict, dependency: dict, event: str, element: str) -> bool:
    names = {item["id"]: item["props"].get("elem_id") for item in config["components"]}
    return any(kind == event and names.get(target) == element for target, kind in dependency["targets"])


def test_uploads_are_bounded_and_need_the_pages_own_header(client, studio: Studio) -> None:
    assert client.post("/uploads", content=b"x").status_code == 400
    big = client.post("/uploads", content=b"x" * 201_000, headers={"x-file-name": "big.png"})
    assert big.status_code == 413 and "big.png is larger" in big.text
    huge = client.post("/uploads", content=b"x" * 300_000, headers={"x-file-name": "huge.png"})
    assert huge.status_code == 413
    endless = client.post("/uploads", content=iter([b"x"] * 9), headers={"x-file-name": "endless.png"})
    assert endless.status_code == 411
    assert [path for path in studio.folder.rglob("*") if path.is_file()] == []
    for _ in range(45):
        assert client.post("/uploads", content=b"x", headers={"x-file-name": "a.png"}).status_code == 200
    assert len([path for path in studio.folder.rglob("*") if path.is_file()]) == 40


def test_names_of_uploads_are_harmless() -> None:
    for given, kept in {
        "photo.png": "photo.png",
        "../../etc/passwd": "passwd",
        "C:\\Users\\me\\cat.JPG": "cat.JPG",
        "<img src=x>.png": "_img src_x_.png",
        ".": "upload",
        "": "upload",
        "..": "upload",
        "a" * 300 + ".png": "a" * 72 + ".png",
        "Bild\0ähm.png": "Bild_ähm.png",
    }.items():
        assert safe_name(given) == kept


def test_no_method_of_the_page_is_offered_as_an_interface(client) -> None:
    described = client.get("/gradio_api/info").json()
    assert described["named_endpoints"] == {} and described["unnamed_endpoints"] == {}


def test_foreign_names_are_refused(client) -> None:
    """A web site cannot reach the demo through a visitor's browser by a name of its own (DNS rebinding)."""
    rebound = client.get("/", headers={"host": "attacker.example"})
    assert rebound.status_code == 400 and "fastsam3d" not in rebound.text


def test_options() -> None:
    options = options_from(["port=0", "device=cpu", "timeout=5", "warm_up=false", "model=mini"])
    assert (options.port, options.host, options.timeout, options.warm_up) == (0, "127.0.0.1", 5, False)
    assert options.rest == ("device=cpu", "model=mini")
    for word, message in {
        "port=70000": "0 to 65535",
        "timeout=soon": "whole number",
        "verbose": "not key=value",
        "seed=3": "chosen in the page",
        "acceleration.step_caching.stride=2": "chosen in the page",
        "faces=5000": "chosen in the page",
        "--faces=5000": "chosen in the page",
        "depth=moge": "depth is not used by the page",
        "export=stl": "export is not used by the page",
        "warm_up=1": "true or false",
    }.items():
        with pytest.raises(UserError, match=message):
            options_from([word])


def test_every_setting_of_a_job_is_used_by_the_page_or_refused() -> None:
    used = {"model", "checkpoint_dir", "random_weights", "formats", "precision", "memory", "device", "threads"}
    used |= {"marker", "sam_checkpoint", "sam_model"}
    keys = {line.partition(":")[0] for line in (CONFIG / "config.yaml").read_text().splitlines() if line[:1].isalpha()}
    passed = set()
    for key in keys - {"defaults"} | {"model", "acceleration"}:
        with contextlib.suppress(UserError):
            passed.update(word.partition("=")[0] for word in options_from([f"{key}=1"]).rest)
    assert passed == used


def test_a_taken_port_is_said_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr("fastsam3d.cli.commands.demo.serve", lambda *_: pytest.fail("nothing may be loaded"))
        with pytest.raises(UserError, match="choose another with port=N"):
            main([f"port={taken.getsockname()[1]}"])


def test_missing_weights_end_it_before_anybody_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio", reason="the page needs Gradio (extra demo)")
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "")  # put back afterwards
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for words, message in {
        ("checkpoint_dir=/nowhere",): "/nowhere does not exist",
        ("model=nope",): "unknown model",
        ("sam_checkpoint=/nowhere/sam.pth",): "there is no file",
    }.items():
        with pytest.raises(UserError, match=message):
            main(["port=0", "device=cpu", *words])
    assert list(tmp_path.iterdir()) == []


def test_help_and_mistakes_on_the_command_line() -> None:
    root = Path(__file__).resolve().parents[2]

    def run(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, *words], cwd=root, capture_output=True, text=True, timeout=600)

    for command in (["gradio_demo.py"], ["-m", "fastsam3d", "demo"]):
        shown = run(*command, "--help")
        assert shown.returncode == 0 and "port=7860" in shown.stdout and "127.0.0.1" in shown.stdout
    wrong = run("gradio_demo.py", "port=x")
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr and "port=x" in wrong.stderr


def test_gradio_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastsam3d.app.server.server import require_gradio

    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"pip install 'fastsam3d\[demo\]'"):
        require_gradio()
