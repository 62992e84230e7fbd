"""Images onto the nodes."""

import json
from collections.abc import Sequence
from pathlib import Path

from tools.cache import cache
from tools.cluster.errors import Failed
from tools.cluster.node import NODES, Node
from tools.cluster.progress import step
from tools.images.image import IMAGES
from tools.images.local import build, export

#: Images of several GB, which go only to the first node, where the models are.
ON_FIRST_NODE_ONLY = ("ray-vllm", "ray-vllm-cpu")


def homes(name: str) -> Sequence[Node]:
    """The nodes that the image ``name`` belongs on."""
    return NODES[:1] if name in ON_FIRST_NODE_ONLY else NODES


def load(names: Sequence[str]) -> None:
    """Build images by their names in `tools.images`, and import each on its nodes, unless they have that very one.

    Of an image, a node is given what it has not: after a change of our code a layer, not gigabytes.
    """
    # Of one name, so that what a killed import leaves is overwritten, and gone, with the next one.
    archive = cache() / "cluster" / "image.tar"
    for name in names:
        built = build(name)
        reference = IMAGES[name].full_reference
        lacking = [node for node in homes(name) if image_id(node, reference) != built]
        if not lacking:
            continue
        for node in lacking:
            with step(f"importing {reference} on {node.name}"):
                try:
                    export(name, archive, held=_content(node))
                    _import(node, archive, reference)
                finally:
                    archive.unlink(missing_ok=True)
            if (found := image_id(node, reference)) != built:
                raise Failed(f"{node.name} has {found or 'no image'} as {reference} after the import of {built}")


def ensure(name: str) -> None:
    """Load an image if a node has none by its name; whether it is the newest is not asked, so nothing is built."""
    reference = IMAGES[name].full_reference
    if any(image_id(node, reference) is None for node in homes(name)):
        load([name])


def image_id(node: Node, reference: str) -> str | None:
    """The id of the image that ``node`` holds under the full ``reference``, as hexadecimal digits: its config's."""
    if not (manifest := _manifest(node, reference)):
        return None
    config: str = json.loads(node.ctr("content", "get", manifest))["config"]["digest"]
    return config.removeprefix("sha256:")


def _content(node: Node) -> set[str]:
    """The digests of all that ``node``'s content store has."""
    return set(node.ctr("content", "list", "--quiet").split())


def _import(node: Node, archive: Path, reference: str) -> None:
    """Import an archive, and remove the image that was called ``reference`` before if that was its last name."""
    before = _manifest(node, reference)
    kept = f"{reference}-before"
    if before:
        # The import takes its name away. containerd would collect its layers, also those the new one is being put on.
        node.ctr("images", "tag", "--force", reference, kept)
    node.ctr("images", "import", str(archive))
    if not before:
        return
    names = node.ctr("images", "list", "--quiet", f"target.digest=={before}").split()
    others = [name for name in names if name != kept and not name.startswith("sha256:")]  # that is Kubernetes' own name
    node.ctr("images", "remove", *([kept] if others else names))


def _manifest(node: Node, reference: str) -> str | None:
    """The digest of the manifest that ``node`` holds under the full ``reference``."""
    rows = node.ctr("images", "list", f"name=={reference}").splitlines()[1:]  # REF TYPE DIGEST …
    return rows[0].split()[2] if rows else None
