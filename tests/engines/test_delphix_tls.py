"""TLS: an engine whose certificate nobody knows is refused, unless the settings say otherwise."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import EngineDown

from .make import delphix

pytestmark = [
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate"),
    pytest.mark.usefixtures("secret"),
]


class _Engine(BaseHTTPRequestHandler):
    """As much of an engine as tells its version."""

    def _respond(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b'{"Authorization": "token", "version": "21.0"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _respond  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Server(HTTPServer):
    """Says nothing of a client that hangs up on its certificate."""

    def handle_error(self, *_: Any) -> None:
        """Say nothing."""


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    key, crt = folder / f"{name}.key", folder / f"{name}.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", crt],
        check=True, capture_output=True,
    )  # fmt: skip
    return key, crt


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tls")
    certificate(made, "engine")
    certificate(made, "stranger")
    return made


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "engine.crt", folder / "engine.key")
    with _Server(("127.0.0.1", 0), _Engine) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_certificate_that_nobody_vouches_for_is_refused(url: str) -> None:
    engine = delphix(url)
    with pytest.raises(EngineDown, match=r"POST /login: SSLC.*self-signed certificate"):
        engine.describe()
    engine.close()


def test_a_certificate_that_the_ca_file_vouches_for_is_accepted(url: str, folder: Path) -> None:
    engine = delphix(url, verify=str(folder / "engine.crt"))
    assert engine.describe() == "masking engine 21.0"
    engine.close()


def test_a_certificate_of_another_ca_is_refused(url: str, folder: Path) -> None:
    engine = delphix(url, verify=str(folder / "stranger.crt"))
    with pytest.raises(EngineDown, match="certificate verify failed"):
        engine.describe()
    engine.close()


def test_a_ca_of_the_environment_does_not_vouch(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(folder / "engine.crt"))
    engine = delphix(url)
    with pytest.raises(EngineDown, match="certificate verify failed"):
        engine.describe()
    engine.close()


def test_without_verification_any_certificate_is_accepted_and_the_log_warns(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = delphix(url, verify=False)
    assert engine.describe() == "masking engine 21.0"
    assert "verify = false: anybody on the way can read the password" in caplog.text
    engine.close()
