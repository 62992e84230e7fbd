"""Errors of the cluster; each message is for the person at the terminal."""


class ClusterError(RuntimeError):
    """The base of all below."""


class Unsuitable(ClusterError):
    """This machine cannot run the cluster; the message says what is missing and how to get it."""


class Failed(ClusterError):
    """A part did not start or ended early; the message has the path and the end of its log."""


class KubectlFailed(ClusterError):
    """kubectl did not succeed; the message is its own."""
