"""``python -m tools.key ID``: make an API key for the gateway."""

import argparse
import re
import sys

from serve_apps.common.secrets import new_api_key

#: A key's id is a file name in the Secret and the tenant's name in limits and metrics.
KEY_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def main() -> int:
    """Print a new key and its record; the exit code."""
    parser = argparse.ArgumentParser(prog="make key", description=__doc__)
    parser.add_argument("key_id", metavar="ID", help="the tenant's name, such as team-a (make key ID=team-a)")
    key_id = parser.parse_args().key_id
    if not KEY_ID.fullmatch(key_id):
        print(f"key: the id {key_id!r} is not of lower-case letters, digits and inner hyphens", file=sys.stderr)
        return 1
    made = new_api_key(key_id)
    print(f"key (for the client; it is not kept anywhere):\n  {made.key}")
    print(f"entry for the gateway's Secret (from it nobody gets the key back):\n  {made.key_id}={made.record}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
