from collections.abc import Callable

from serve_apps.gateway.replicas import Replicas, Target, Targets

ONE, TWO = Target("a", "10.0.0.1", 30000), Target("b", "10.0.0.2", 30001)


class Source:
    """Tells of targets when a test says so."""

    def __init__(self) -> None:
        self.followers: list[Callable[[Targets], None]] = []

    def follow(self, changed: Callable[[Targets], None]) -> Callable[[], None]:
        self.followers.append(changed)
        return lambda: self.followers.remove(changed)

    def tell(self, targets: Targets) -> None:
        for changed in self.followers:
            changed(targets)


def test_the_targets_are_those_told_last() -> None:
    source = Source()
    replicas = Replicas(source.follow)
    replicas.open()
    assert replicas.targets("chat") == ()
    source.tell({"chat": (ONE,), "embedder": (TWO,)})
    assert replicas.targets("chat") == (ONE,)
    source.tell({"chat": (ONE, TWO)})
    assert replicas.targets("chat") == (ONE, TWO)
    assert replicas.targets("embedder") == ()


def test_nothing_is_followed_before_open_and_after_close() -> None:
    source = Source()
    replicas = Replicas(source.follow)
    assert source.followers == []
    replicas.open()
    assert len(source.followers) == 1
    replicas.close()
    assert source.followers == []


def test_without_a_source_there_are_no_targets() -> None:
    replicas = Replicas()
    replicas.open()
    assert replicas.targets("chat") == ()
    replicas.close()


def test_a_target_is_dialled_at_its_host_and_port() -> None:
    assert ONE.address == ("10.0.0.1", 30000)
