import base64
import subprocess
from pathlib import Path

import pytest
import yaml

from tools.cluster import certificates
from tools.cluster.certificates import Pair, token_table


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(certificates, "CERTIFICATES", tmp_path)
    monkeypatch.setattr(certificates, "CA", Pair("ca"))
    monkeypatch.setattr(certificates, "TOKENS", tmp_path / "tokens.csv")
    monkeypatch.setattr(certificates, "SERVICE_ACCOUNT_KEY", tmp_path / "service-account.key")
    monkeypatch.setattr(certificates, "KUBECONFIG", tmp_path / "kubeconfig")
    return tmp_path


def test_pods_and_people_can_verify_the_api_server_by_address_and_by_name(folder: Path) -> None:
    certificates.make("10.89.0.1", "10.96.0.1", ["node1"])
    for name in ("-verify_ip=10.89.0.1", "-verify_ip=10.96.0.1", "-verify_hostname=kubernetes.default.svc"):
        assert openssl("verify", "-CAfile", "ca.crt", *name.split("="), "apiserver.crt", folder=folder)
    assert not openssl("verify", "-CAfile", "ca.crt", "-verify_hostname", "example.com", "apiserver.crt", folder=folder)


def test_the_administrators_kubeconfig_trusts_the_ca_and_is_private(folder: Path) -> None:
    certificates.make("10.89.0.1", "10.96.0.1", [])
    config = yaml.safe_load((folder / "kubeconfig").read_text())
    cluster = config["clusters"][0]["cluster"]
    assert cluster["server"] == "https://10.89.0.1:6443"
    assert base64.b64decode(cluster["certificate-authority-data"]) == (folder / "ca.crt").read_bytes()
    assert (folder / "kubeconfig").stat().st_mode & 0o777 == 0o600


def test_they_are_made_once(folder: Path) -> None:
    certificates.make("10.89.0.1", "10.96.0.1", ["node1"])
    first = (folder / "ca.crt").read_bytes()
    certificates.make("10.89.0.1", "10.96.0.1", ["node1"])
    assert (folder / "ca.crt").read_bytes() == first


def test_a_node_has_the_rights_of_a_node_only() -> None:
    assert token_table({"admin": "a", "node1": "b"}).splitlines() == [
        'a,admin,admin,"system:masters"',
        'b,system:node:node1,node1,"system:nodes"',
    ]


def openssl(*arguments: str, folder: Path) -> bool:
    return subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, check=False).returncode == 0
