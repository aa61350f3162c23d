"""TLS: an engine whose certificate nobody knows is refused, unless the settings say otherwise."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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


def certificate(folder: Path, name: str, *more: str, names: str = "IP:127.0.0.1") -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName={names}", *(more or ("-days", "2")),
         "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt"],
        check=True, capture_output=True,
    )  # fmt: skip


def expired(folder: Path, name: str) -> None:
    """Make a certificate whose time is over; `req` makes none, so a CA signs it."""
    request: list[str | Path] = [
        "openssl",
        "req",
        "-new",
        "-key",
        folder / "engine.key",
        "-subj",
        f"/CN={name}",
        "-out",
        folder / "csr",
    ]
    subprocess.run(request, check=True, capture_output=True)
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1\n")
    sign: list[str | Path] = [
        "openssl", "x509", "-req", "-in", folder / "csr", "-CA", folder / "ca.crt", "-CAkey", folder / "ca.key",
        "-CAcreateserial", "-days", "-1", "-extfile", folder / "extensions", "-out", folder / f"{name}.crt",
    ]  # fmt: skip
    subprocess.run(sign, check=True, capture_output=True)
    shutil.copy(folder / "engine.key", folder / f"{name}.key")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tls")
    certificate(made, "engine")
    certificate(made, "stranger")
    certificate(made, "ca")
    certificate(made, "elsewhere", names="DNS:engine9.example.com,IP:127.0.0.9")
    expired(made, "expired")
    return made


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    with served(folder, "engine") as url:
        yield url


@contextmanager
def served(folder: Path, name: str) -> Iterator[str]:
    """Serve an engine with this certificate; its URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")
    with _Server(("127.0.0.1", 0), _Engine) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_certificate_that_nobody_vouches_for_is_refused(url: str) -> None:
    engine = delphix(url)
    with pytest.raises(EngineDown, match=r"POST /login: certificate verify failed: self-signed certificate"):
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


@pytest.mark.parametrize(
    ("name", "verify", "wrong", "todo"),
    [
        ("engine", True, "self-signed certificate", 'and set verify = "/path/of/that.pem"'),
        ("expired", "ca.crt", "certificate has expired", "have it renewed on the engine"),
        ("elsewhere", "elsewhere.crt", "IP address mismatch", "set url to a name that the certificate bears"),
        ("expired", "stranger.crt", "unable to get local issuer certificate", 'set verify = "/path/ca.pem"'),
    ],
)
def test_a_certificate_that_is_refused_is_told_in_one_line_with_what_to_do(
    folder: Path, name: str, verify: bool | str, wrong: str, todo: str
) -> None:
    with served(folder, name) as url:
        engine = delphix(url, verify=str(folder / verify) if isinstance(verify, str) else verify)
        with pytest.raises(EngineDown) as down:
            engine.describe()
        engine.close()

    assert str(down.value).startswith("POST /login: certificate verify failed: ")
    assert wrong in str(down.value)
    assert url.removeprefix("https://") in str(down.value)
    assert todo in str(down.value)
    assert str(down.value).isprintable()


def test_a_wrong_host_name_is_told_with_what_to_do(folder: Path) -> None:
    with served(folder, "elsewhere") as url:
        engine = delphix(url.replace("127.0.0.1", "localhost"), verify=str(folder / "elsewhere.crt"))
        with pytest.raises(EngineDown, match=r"Hostname mismatch.*localhost.*set url to a name that") as down:
            engine.describe()
        engine.close()

    assert len(str(down.value).splitlines()) == 1


def test_an_engine_without_tls_is_told_in_one_line(secret: str) -> None:
    assert secret
    with _Server(("127.0.0.1", 0), _Engine) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        engine = delphix(f"https://127.0.0.1:{server.server_port}")
        with pytest.raises(EngineDown, match="does not speak TLS: is the port of the url right") as down:
            engine.describe()
        engine.close()
        server.shutdown()
        thread.join()

    assert len(str(down.value).splitlines()) == 1
