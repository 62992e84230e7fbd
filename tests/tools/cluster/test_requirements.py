import pytest

from tools.cluster import requirements
from tools.cluster.errors import Unsuitable


def test_what_is_missing_is_named_with_the_packages_that_have_it() -> None:
    assert requirements.missing_packages(["ctr", "containerd", "conntrack"]) == (
        "not found: ctr, containerd, conntrack; "
        "`make packages`, or apt-get install --no-install-recommends conntrack containerd"
    )


def test_a_user_who_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(Unsuitable, match=r"^the cluster needs root, .*KUBECONFIG"):
        requirements.check_root()


def test_nothing_is_installed_where_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path: f"/bin/{name}")
    monkeypatch.delattr(requirements, "run")
    assert requirements.install() == "nothing to install"


def test_missing_packages_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, ...]] = []
    lacking = ("conntrack", "ctr", "containerd")
    monkeypatch.setattr("shutil.which", lambda name, path: None if name in lacking else f"/bin/{name}")
    monkeypatch.setattr(requirements, "run", lambda *words: ran.append(words))
    assert requirements.install() == "installed conntrack, containerd"
    assert ran[-1][-2:] == ("conntrack", "containerd")


def test_without_apt_the_programs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path: None)
    with pytest.raises(Unsuitable, match=r"^not found: containerd, .* and no apt-get to install them"):
        requirements.install()


def test_too_little_memory_is_refused_with_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "NEEDED_MEMORY_GB", 1e6)
    with pytest.raises(Unsuitable, match=r"^\d+\.\d GB of memory are free; the cluster alone needs 1000000"):
        requirements.check_room()
