"""Ids of spans: what W3C asks of them, and nobody's twice."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

from dspyserve.execution.span_ids import span_ids


def test_are_16_hex_digits_one_after_the_other() -> None:
    ids = span_ids()
    found = [next(ids) for _ in range(1_000)]
    assert all(re.fullmatch("[0-9a-f]{16}", each) and int(each, 16) for each in found)
    assert found == sorted(set(found))
    assert int(found[-1], 16) - int(found[0], 16) == len(found) - 1


def test_runs_have_others() -> None:
    assert len({next(span_ids()) for _ in range(1_000)}) == 1_000


def test_threads_may_share_them() -> None:
    ids = span_ids()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: [next(ids) for _ in range(5_000)], range(8)))
    assert len({each for some in found for each in some}) == 40_000
