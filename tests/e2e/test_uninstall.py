"""The end of the main release."""

from tests.e2e.preparation import DATA_CLAIM
from tests.e2e.release import Release
from tests.e2e.waiting import until
from tools.demo.models import CLAIM

#: Everything that a release makes, or has made for it.
KINDS = (
    "rayservices,rayclusters,pods,services,statefulsets,deployments,jobs,secrets,configmaps,persistentvolumeclaims,"
    "ingresses,serviceaccounts,roles,rolebindings,endpointslices,networkpolicies,poddisruptionbudgets,rayjobs,cronjobs,"
    "horizontalpodautoscalers"
)
#: What a namespace has by itself, and the claims the tests made.
NOT_OURS = {
    "configmap/kube-root-ca.crt",
    "serviceaccount/default",
    f"persistentvolumeclaim/{CLAIM}",
    f"persistentvolumeclaim/{DATA_CLAIM}",
}
#: Redis and Ray end by themselves; KubeRay's clean-up of Redis must not hold it up.
GONE_TIMEOUT_S = 600


def test_nothing_is_left_of_an_uninstalled_release(release: Release) -> None:
    """`helm uninstall` with Redis in the release: no RayCluster, pod, Job, Secret, claim or account stays behind."""
    release.helm("uninstall", release.name, "--wait", f"--timeout={GONE_TIMEOUT_S}s")
    until("everything of the release is gone", lambda: left(release), lambda names: not names, GONE_TIMEOUT_S)


def left(release: Release) -> list[str]:
    """What is in the namespace and was not there before the release."""
    names = release.kubectl("get", KINDS, "--output=name").split()
    plain = {name.replace(".ray.io", "").replace(".apps", "").replace(".batch", "") for name in names}
    return sorted(plain - NOT_OURS)
