"""Where the API server is found, who we are to it, and that nothing is guessed."""

from __future__ import annotations

import base64
import os
import ssl
import stat
import time
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from vectorwright.errors import Terminal
from vectorwright.kube.connection import FileToken, KubeConnection, StaticToken, load_connection

CA = trustme.CA()
CERTIFICATE = CA.issue_cert("client.example")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def write(
    path: Path, *, cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None, **more: Any
) -> Path:
    document = {
        "clusters": [{"name": "c", "cluster": {"server": "https://api.example:6443/", **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {}}],
        "contexts": [{"name": "main", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
        "current-context": "main",
        **more,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document))
    return path


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_a_kubeconfig_with_a_token(tmp_path: Path) -> None:
    found = load_connection(write(tmp_path / "k", user={"token": "secret-token"}))
    assert found.server == "https://api.example:6443"
    assert found.namespace == "team"
    assert not found.in_cluster
    assert found.authorization() == "Bearer secret-token"
    assert "secret-token" not in repr(found)


def test_a_token_file_is_read_again_and_wins_over_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t").write_text("first\n")
    found = load_connection(write(tmp_path / "k", user={"token": "literal", "tokenFile": "t"}))
    assert found.authorization() == "Bearer first"
    (tmp_path / "t").write_text("second\n")
    assert found.authorization() == "Bearer first"
    assert found.authorization(fresh=True) == "Bearer second"
    (tmp_path / "t").write_text("third\n")
    later = time.monotonic() + 61
    monkeypatch.setattr("vectorwright.kube.connection.time.monotonic", lambda: later)
    assert found.authorization() == "Bearer third"
    (tmp_path / "t").unlink()
    assert found.authorization(fresh=True) == "Bearer third"


def test_a_token_file_that_never_was_is_terminal(tmp_path: Path) -> None:
    with pytest.raises(Terminal, match="cannot read the API token"):
        FileToken(tmp_path / "absent").read()


def test_user_name_and_password(tmp_path: Path) -> None:
    found = load_connection(write(tmp_path / "k", user={"username": "me", "password": "p"}))
    assert found.authorization() == "Basic " + b64(b"me:p")


@pytest.mark.parametrize("inline", [True, False])
def test_certificates_as_data_or_files(tmp_path: Path, inline: bool) -> None:
    parts = {
        "certificate-authority": CA.cert_pem.bytes(),
        "client-certificate": CERTIFICATE.cert_chain_pems[0].bytes(),
        "client-key": CERTIFICATE.private_key_pem.bytes(),
    }
    for name, data in parts.items():
        (tmp_path / name).write_bytes(data)
    entries = {f"{n}-data": b64(d) for n, d in parts.items()} if inline else {n: n for n in parts}
    cluster = {key: value for key, value in entries.items() if key.startswith("certificate")}
    user = {key: value for key, value in entries.items() if key.startswith("client")}
    found = load_connection(write(tmp_path / "k", cluster=cluster, user=user))
    assert found.ca == CA.cert_pem.bytes().decode()
    assert found.client_key == CERTIFICATE.private_key_pem.bytes().decode()
    context = found.ssl_context()
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    # The cluster's authority alone is trusted.
    assert context.cert_store_stats()["x509_ca"] == 1
    assert "PRIVATE" not in repr(found)


def test_the_rest_of_a_cluster_entry(tmp_path: Path) -> None:
    found = load_connection(
        write(tmp_path / "k", cluster={"insecure-skip-tls-verify": True, "tls-server-name": "kubernetes"})
    )
    assert found.tls_server_name == "kubernetes"
    context = found.ssl_context()
    assert context is not None
    assert context.verify_mode is ssl.CERT_NONE
    assert KubeConnection(server="http://127.0.0.1:1").ssl_context() is None


def test_wrong_certificates_are_terminal_and_not_shown(tmp_path: Path) -> None:
    bad = {"client-certificate-data": b64(b"hush"), "client-key-data": b64(b"hush")}
    with pytest.raises(Terminal, match="certificates for https://api") as refused:
        load_connection(write(tmp_path / "k", user=bad)).ssl_context()
    assert "hush" not in refused.value.message
    with pytest.raises(Terminal, match="is not base64 of a PEM text"):
        load_connection(write(tmp_path / "k", user={"client-key-data": "%%%"}))


def test_a_context_is_chosen_by_name(tmp_path: Path) -> None:
    contexts = [
        {"name": "main", "context": {"cluster": "c", "user": "u"}},
        {"name": "other", "context": {"cluster": "c", "user": "u", "namespace": "elsewhere"}},
    ]
    path = write(tmp_path / "k", contexts=contexts)
    assert load_connection(path).namespace == "default"
    assert load_connection(path, "other").namespace == "elsewhere"
    with pytest.raises(Terminal, match=r"no context 'third' in .* \(contexts there: main, other\)"):
        load_connection(path, "third")


def test_a_context_alone_means_the_users_files_and_the_first_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write(tmp_path / "a" / "k", cluster={"server": "https://first"}, user={"tokenFile": "t"})
    (tmp_path / "a" / "t").write_text("from-a")
    second = write(tmp_path / "b" / "k", cluster={"server": "https://second"})
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join([str(tmp_path / "absent"), str(first), str(second)]))
    found = load_connection(None, "main")
    assert found.server == "https://first"
    assert found.authorization() == "Bearer from-a"
    monkeypatch.delenv("KUBECONFIG")
    write(tmp_path / "home" / ".kube" / "config", cluster={"server": "https://home"})
    assert load_connection(None, "main").server == "https://home"


def test_the_current_context_of_the_users_files_is_never_taken_unasked(tmp_path: Path) -> None:
    write(tmp_path / "home" / ".kube" / "config")
    with pytest.raises(Terminal, match="--context NAME or --kubeconfig FILE") as refused:
        load_connection()
    assert refused.value.reason == "NoCluster"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is not YAML"),
        ("- a", "is not a mapping"),
        ("{}", "has no current-context"),
        ("{current-context: x, contexts: [{name: x, context: {cluster: y}}]}", "its cluster 'y' has no server"),
    ],
)
def test_a_broken_kubeconfig_is_told(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "k").write_text(text)
    with pytest.raises(Terminal, match=words):
        load_connection(tmp_path / "k")


def test_a_proxy_is_refused_rather_than_ignored(tmp_path: Path) -> None:
    with pytest.raises(Terminal, match="proxy-url is not supported"):
        load_connection(write(tmp_path / "k", cluster={"proxy-url": "http://proxy"}))


def test_a_login_plugin_gives_the_token(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    credential = (
        '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"from-the-plugin"}}'
    )
    plugin.write_text(f"#!/bin/sh\necho '{credential}'\n")
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    run = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": str(plugin),
        "interactiveMode": "Never",
        "args": [],
    }
    found = load_connection(write(tmp_path / "k", user={"exec": run}))
    assert found.token is not None
    assert found.token.blocking
    assert found.authorization() == "Bearer from-the-plugin"


def test_in_a_pod_the_service_account_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    (tmp_path / "token").write_text("pod-token")
    (tmp_path / "ca.crt").write_bytes(CA.cert_pem.bytes())
    (tmp_path / "namespace").write_text("vectorwright-system")
    found = load_connection(service_account_dir=tmp_path)
    assert found.in_cluster
    assert found.server == "https://[fd00::1]:6443"
    assert found.namespace == "vectorwright-system"
    assert found.authorization() == "Bearer pod-token"
    (tmp_path / "ca.crt").unlink()
    with pytest.raises(Terminal, match="service account is incomplete"):
        load_connection(service_account_dir=tmp_path)


def test_the_fields_for_kopf(tmp_path: Path) -> None:
    kopf = pytest.importorskip("kopf")
    found = KubeConnection(
        server="https://api", namespace="team", ca=CA.cert_pem.bytes().decode(), token=StaticToken("kopf-token")
    )
    info = kopf.ConnectionInfo(**found.to_kopf_connection_info())
    assert info.as_http_headers() == {"Authorization": "Bearer kopf-token"}
    assert info.default_namespace == "team"
    info.as_ssl_context()


def test_a_login_plugin_that_fails_is_told_without_its_words(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    plugin.write_text("#!/bin/sh\necho hush-secret >&2\nexit 1\n")
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    run = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "interactiveMode": "Never"}
    with pytest.raises(Terminal, match="login plugin of context 'main'") as refused:
        load_connection(write(tmp_path / "k", user={"exec": run}))
    assert "hush" not in refused.value.message
