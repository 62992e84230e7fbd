"""``python -m tools.key ID``: make an API key for the gateway, the tenant's first or its next."""

import argparse
import re
import sys
from datetime import UTC, date, datetime

from serve_apps.common.secrets import new_api_key

#: A tenant's name: an entry in the Secret, and its name in limits and metrics.
TENANT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def main() -> int:
    """Print a new key, its record and how they get there; the exit code."""
    parser = argparse.ArgumentParser(prog="make key", description=__doc__)
    parser.add_argument("tenant", metavar="ID", help="the tenant's name, such as team-a (make key ID=team-a)")
    parser.add_argument("--rotate", action="store_true", help="a key beside those it has (ROTATE=1)")
    parser.add_argument("--expires", metavar="YYYY-MM-DD", help="the day it ends on, in UTC (EXPIRES=2027-01-31)")
    given = parser.parse_args()
    if not TENANT.fullmatch(given.tenant):
        return _refuse(
            f"the id {given.tenant!r} is not of lower-case letters, digits and inner hyphens, as in ID=team-a"
        )
    now = datetime.now(UTC)
    try:
        expires = date.fromisoformat(given.expires) if given.expires else None
    except ValueError:
        return _refuse(f"the day {given.expires!r} is not written as 2027-01-31")
    if expires is not None and expires <= now.date():
        return _refuse(f"the day {given.expires} is not after today")
    # The minute tells the tenant's keys apart and says how old each is.
    made = new_api_key(f"{given.tenant}.{now:%Y%m%d%H%M}" if given.rotate else given.tenant, expires)
    print(f"key (for the client; it is not kept anywhere):\n  {made.key}")
    print(f"entry for the gateway's Secret (from it nobody gets the key back):\n  {made.key_id}={made.record}")
    if given.rotate:
        print(_rotation(given.tenant, made.key_id, made.record))
    return 0


def _rotation(tenant: str, key_id: str, record: str) -> str:
    return f"""add it beside the old key ($SECRET is the gateway's Secret of API keys); both work from then on:
  kubectl patch secret $SECRET --patch '{{"stringData": {{"{key_id}": "{record}"}}}}'
when every client has the new key, list the entries and take the old one out ({tenant}, or {tenant}. and its minute):
  kubectl get secret $SECRET --output go-template='{{{{range $id, $_ := .data}}}}{{{{$id}}}}{{{{"\\n"}}}}{{{{end}}}}'
  kubectl patch secret $SECRET --patch '{{"data": {{"{tenant}": null}}}}'"""


def _refuse(why: str) -> int:
    print(f"key: {why}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
