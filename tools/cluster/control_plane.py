"""The machine ``control``: etcd, API server, controllers, CoreDNS and KubeRay's operator, as plain processes."""

import shutil
from collections.abc import Callable

from tools.cluster import certificates, network
from tools.cluster.certificates import APISERVER, CA, KUBELET_CLIENT, SERVICE_ACCOUNT_KEY, TOKENS, WEBHOOK
from tools.cluster.kubectl import kubectl
from tools.cluster.machine import Machine
from tools.cluster.progress import wait_until
from tools.cluster.state import KUBECONFIG
from tools.gotools import binary

CONTROL = Machine("control", "10.89.0.1")
#: The Service "kubernetes": the API server for pods.
SERVICE_ADDRESS = "10.96.0.1"
ETCD_URL = "http://127.0.0.1:2379"  # of the machine, not of the host
WEBHOOK_PORT = 9443
WEBHOOK_URL = f"https://{CONTROL.address}:{WEBHOOK_PORT}/validate-ray-io-v1-raycluster"
#: A busy machine takes its time.
START_TIMEOUT_S = 300
#: A lost node is NotReady after this time; Kubernetes' own default is 50 s.
NODE_GRACE_S = 20

COREFILE = f"""cluster.local in-addr.arpa {{
    errors
    kubernetes {{
        kubeconfig {KUBECONFIG}
    }}
    cache 5
}}
# Nothing leads out of the cluster: say so at once.
. {{
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""


def start(nodes: list[str]) -> None:
    """Start what does not run of the control plane; the operator comes later, see `start_operator`.

    Raises:
        Failed: A process ended, or the API server is not ready in time.
    """
    CONTROL.folder.mkdir(parents=True, exist_ok=True)
    certificates.make(CONTROL.address, SERVICE_ADDRESS, nodes)
    network.connect_control(CONTROL)
    CONTROL.boot()
    CONTROL.start("etcd", etcd())
    CONTROL.start("kube-apiserver", apiserver())
    wait_until(ready, "kube-apiserver", START_TIMEOUT_S, _check("etcd", "kube-apiserver"))
    CONTROL.start("kube-controller-manager", controller_manager())
    CONTROL.start("kube-scheduler", scheduler())
    (CONTROL.folder / "Corefile").write_text(COREFILE)
    CONTROL.start("coredns", [str(binary("coredns")), "-conf", str(CONTROL.folder / "Corefile")])


def start_proxy(node: str) -> None:
    """Start kube-proxy, which leads the host and the operator to Services.

    It stands in for ``node``'s, since it wants a Node to be its own, and control is none.
    """
    CONTROL.start("kube-proxy", kube_proxy(node))


def start_operator() -> None:
    """Start KubeRay's operator, unless it runs; it needs the custom resources.

    Raises:
        Failed: It ended, or its webhook does not answer in time.
    """
    scratch = CONTROL.folder / "operator"
    serving = scratch / "k8s-webhook-server" / "serving-certs"
    serving.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(WEBHOOK.certificate, serving / "tls.crt")
    shutil.copyfile(WEBHOOK.key, serving / "tls.key")
    environment = {
        "KUBECONFIG": str(KUBECONFIG),
        "TMPDIR": str(scratch),
        "ENABLE_WEBHOOKS": "true",
        "POD_NAMESPACE": "kube-system",
    }
    CONTROL.start("kuberay-operator", operator(), environment)
    wait_until(_webhook_answers, "kuberay-operator's webhook", START_TIMEOUT_S, _check("kuberay-operator"))


def check() -> None:
    """Nothing, if Kubernetes' own part of it runs.

    Raises:
        Failed: A process has ended.
    """
    _check("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "coredns")()


def ready() -> bool:
    """Whether the API server answers and is ready."""
    return KUBECONFIG.exists() and kubectl("get", "--raw=/readyz", "--request-timeout=20s", check=False) == "ok"


def etcd() -> list[str]:
    """The storage of the API server."""
    peers = "http://127.0.0.1:2380"
    return [
        str(binary("etcd")),
        # In the machine's memory: a disk that is busy may keep a write waiting for 20 seconds, and a node that cannot
        # renew its lease for so long is lost. A cluster that outlives a power failure is not wanted here.
        "--data-dir=/run/etcd",
        "--unsafe-no-fsync",
        f"--listen-client-urls={ETCD_URL}",
        f"--advertise-client-urls={ETCD_URL}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
    ]


def apiserver() -> list[str]:
    """The API server, with what `kubectl logs`, `exec` and `port-forward` need to reach kubelets."""
    return [
        str(binary("kube-apiserver")),
        f"--etcd-servers={ETCD_URL}",
        f"--advertise-address={CONTROL.address}",
        "--secure-port=6443",
        f"--service-cluster-ip-range={network.SERVICES}",
        f"--tls-cert-file={APISERVER.certificate}",
        f"--tls-private-key-file={APISERVER.key}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={SERVICE_ACCOUNT_KEY}",
        f"--service-account-signing-key-file={SERVICE_ACCOUNT_KEY}",
        f"--token-auth-file={TOKENS}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--client-ca-file={CA.certificate}",
        f"--kubelet-client-certificate={KUBELET_CLIENT.certificate}",
        f"--kubelet-client-key={KUBELET_CLIENT.key}",
        "--kubelet-preferred-address-types=InternalIP",
        "--profiling=false",
    ]


def controller_manager() -> list[str]:
    """The controllers of Kubernetes' own kinds."""
    return [
        str(binary("kube-controller-manager")),
        f"--kubeconfig={KUBECONFIG}",
        f"--service-account-private-key-file={SERVICE_ACCOUNT_KEY}",
        f"--root-ca-file={CA.certificate}",
        f"--node-monitor-grace-period={NODE_GRACE_S}s",
        "--leader-elect=false",
    ]


def scheduler() -> list[str]:
    """What chooses a pod's node."""
    return [str(binary("kube-scheduler")), f"--kubeconfig={KUBECONFIG}", "--leader-elect=false"]


def kube_proxy(node: str) -> list[str]:
    """What leads a Service's address to its pods, on the machine that it runs on."""
    return [
        str(binary("kube-proxy")),
        f"--kubeconfig={KUBECONFIG}",
        f"--hostname-override={node}",
        f"--cluster-cidr={network.PODS}",
        "--proxy-mode=iptables",
        # These are the host's to set.
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
    ]


def operator() -> list[str]:
    """KubeRay's operator."""
    # It is alone. One that loses an election, on a busy machine, ends, and nobody would start it again.
    return [str(binary("kuberay-operator")), "--enable-leader-election=false"]


def _webhook_answers() -> bool:
    return CONTROL.succeeds("bash", "-c", f"exec 3<>/dev/tcp/{CONTROL.address}/{WEBHOOK_PORT}")


def _check(*processes: str) -> Callable[[], None]:
    def check() -> None:
        for process in processes:
            CONTROL.check(process)

    return check
