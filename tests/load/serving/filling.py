"""Fills the database of a deployment with traces, as a benchmark of the browser does: `... filling COUNT`."""

from __future__ import annotations

import argparse
from typing import Final

import django

_MOULD: Final = 1_000
"""Traces that are unlike each other, at most; all others are copies of these."""


def main() -> None:
    """Store so many traces, in whole hundreds."""
    django.setup()
    from tests.load.browse.fill import fill
    from tests.load.browse.mould import mould

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("count", type=int)
    count = parser.parse_args().count
    fill(count, mould(min(_MOULD, count // 10)))


if __name__ == "__main__":
    main()
