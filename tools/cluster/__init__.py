"""A real Kubernetes cluster on one machine, without Docker: two nodes, KubeRay's operator, real containers.

Each machine of the cluster (``control``, ``node1``, ``node2``) is a set of Linux namespaces of this one: network,
mounts and processes. See docs/test-cluster.md.
"""
