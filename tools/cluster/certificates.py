"""The cluster's certificates, kubeconfigs and tokens: new for each cluster, valid for a year."""

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tools.cluster.commands import run
from tools.cluster.state import CERTIFICATES, KUBECONFIG

DAYS = "365"
#: No extensions but those we name.
OPENSSL_CONFIG = "[req]\ndistinguished_name = subject\n[subject]\n"


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    name: str

    @property
    def certificate(self) -> Path:
        return CERTIFICATES / f"{self.name}.crt"

    @property
    def key(self) -> Path:
        return CERTIFICATES / f"{self.name}.key"


CA = Pair("ca")
APISERVER = Pair("apiserver")
#: What the API server shows to kubelets.
KUBELET_CLIENT = Pair("kubelet-client")
WEBHOOK = Pair("webhook")
#: Signs service account tokens.
SERVICE_ACCOUNT_KEY = CERTIFICATES / "service-account.key"
TOKENS = CERTIFICATES / "tokens.csv"


def make(address: str, service_address: str, nodes: list[str]) -> None:
    """All of them, unless they are there: for an API server at ``address``, also known by the Service's."""
    if TOKENS.exists():
        return
    CERTIFICATES.mkdir(mode=0o700, parents=True, exist_ok=True)
    (CERTIFICATES / "openssl.cnf").write_text(OPENSSL_CONFIG)
    run("openssl", "genrsa", "-out", str(SERVICE_ACCOUNT_KEY), "2048")
    _certify(CA, "/CN=llm-serving-cluster", ["basicConstraints=critical,CA:true", "keyUsage=critical,keyCertSign"])
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
    _certify(APISERVER, "/CN=kube-apiserver", _serving([address, service_address], [*names, "localhost"]), signer=CA)
    client = ["extendedKeyUsage=clientAuth"]
    _certify(KUBELET_CLIENT, "/O=system:masters/CN=kube-apiserver-kubelet-client", client, signer=CA)
    _certify(WEBHOOK, "/CN=kuberay-operator", _serving([address], []), signer=CA)
    tokens = {name: secrets.token_hex(16) for name in ("admin", *nodes)}
    for name, token in tokens.items():
        file = KUBECONFIG if name == "admin" else kubeconfig_of(name)
        file.write_text(yaml.safe_dump(kubeconfig(f"https://{address}:6443", CA.certificate.read_bytes(), token)))
        file.chmod(0o600)
    TOKENS.write_text(token_table(tokens))


def kubeconfig_of(node: str) -> Path:
    """The kubeconfig of a node's kubelet."""
    return CERTIFICATES / f"{node}.kubeconfig"


def ca_bundle() -> str:
    """The CA's certificate as objects hold it."""
    return base64.b64encode(CA.certificate.read_bytes()).decode()


def token_table(tokens: Mapping[str, str]) -> str:
    """Lines ``token,user,uid,"group"``: the administrator, and each node by its name."""
    lines = []
    for name, token in tokens.items():
        user, group = ("admin", "system:masters") if name == "admin" else (f"system:node:{name}", "system:nodes")
        lines.append(f'{token},{user},{name},"{group}"\n')
    return "".join(lines)


def kubeconfig(server: str, ca: bytes, token: str) -> dict[str, Any]:
    """A kubeconfig for one user of the cluster."""
    name = "llm-serving-cluster"
    authority = base64.b64encode(ca).decode()
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }


def _serving(addresses: list[str], names: list[str]) -> list[str]:
    alternatives = [*(f"IP:{address}" for address in addresses), *(f"DNS:{name}" for name in names)]
    return ["extendedKeyUsage=serverAuth", f"subjectAltName={','.join(alternatives)}"]


def _certify(pair: Pair, subject: str, extensions: list[str], signer: Pair | None = None) -> None:
    signed = ["-CA", str(signer.certificate), "-CAkey", str(signer.key)] if signer else []
    added = [word for extension in extensions for word in ("-addext", extension)]
    # fmt: off
    run(
        "openssl", "req", "-x509", "-config", str(CERTIFICATES / "openssl.cnf"), "-newkey", "rsa:2048", "-nodes",
        "-days", DAYS, "-subj", subject, "-keyout", str(pair.key), "-out", str(pair.certificate), *signed, *added,
    )
    # fmt: on
