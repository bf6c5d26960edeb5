"""The process beside a trainer that ships its run: `python -m trainvitals.store.shipper_process FILE`.

The database's address comes in on standard input. It does what `trainvitals ship --follow` does, with a
third of its imports: it starts on a machine that has better things to do.
"""

from __future__ import annotations

import sys

from trainvitals.store.shipping import follow


def main() -> int:
    """Ship until the run is over and all of it is in the database; 1 if the database stayed away."""
    address = sys.stdin.readline().strip()
    return 0 if follow(sys.argv[1], address) else 1


if __name__ == "__main__":
    sys.exit(main())
