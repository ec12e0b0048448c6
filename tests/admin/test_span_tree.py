"""Rows of the tree: their order, their sums and their bars."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

from dspyserve.admin.traces.span_tree import WIDTH, Picture, picture
from dspyserve.models import Span, Trace
from tests.admin.rows import new_span

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
TRACE = Trace(id=uuid.UUID(int=1), started_at=START, duration_ms=1000.0, status="failed")


def drawn(*spans: Span) -> Picture:
    return picture(TRACE, spans)


def lm(number: int, parent: int, **values: Any) -> Span:
    return new_span(TRACE, number, parent, kind="lm", **{"input_tokens": 10, "output_tokens": 1, "cost": 0.5, **values})


def shape(found: Picture) -> list[tuple[int, int]]:
    return [(row.span.sequence, row.depth) for row in found.rows]


class TestOrder:
    def test_parents_stand_before_their_children(self) -> None:
        spans = [new_span(TRACE, 1), new_span(TRACE, 2, 1), new_span(TRACE, 3, 1), new_span(TRACE, 4, 2)]
        assert shape(drawn(*spans)) == [(1, 0), (2, 1), (4, 2), (3, 1)]

    def test_nothing_disappears(self) -> None:
        """An orphan, a circle, one that is its own parent, and two of the same id."""
        twin = new_span(TRACE, 7, 1)
        twin.span_id = new_span(TRACE, 1).span_id
        spans = [new_span(TRACE, 1), new_span(TRACE, 2, 99), new_span(TRACE, 3, 4), new_span(TRACE, 4, 3)]
        found = drawn(*spans, new_span(TRACE, 5, 5), twin)
        assert sorted(row.span.sequence for row in found.rows) == [1, 2, 3, 4, 5, 7]
        assert [row.span.sequence for row in found.rows if row.is_orphan] == [2]

    def test_a_run_that_was_called_from_elsewhere_is_no_orphan(self) -> None:
        assert not drawn(new_span(TRACE, 1, 99, kind="run")).rows[0].is_orphan

    def test_depth_has_no_end(self) -> None:
        found = drawn(*(new_span(TRACE, n, n - 1 if n > 1 else None) for n in range(1, 1501)))
        assert found.rows[-1].depth == 1499
        assert (found.rows[-1].indent, found.rows[-1].is_deep) == (12, True)

    def test_an_empty_trace(self) -> None:
        assert drawn().rows == []


class TestSums:
    def test_parents_add_up_what_is_below_them(self) -> None:
        found = drawn(new_span(TRACE, 1, kind="run"), new_span(TRACE, 2, 1), lm(3, 2), lm(4, 2), new_span(TRACE, 5, 1))
        run, module, first, _, tool = found.rows
        assert (run.tokens, run.price) == ("∑ 20 → 2", "∑ $1")
        assert (module.input_tokens, module.cost, module.lm_calls) == (20, 1.0, 2)
        assert (first.tokens, first.price) == ("10 → 1", "$0.5")
        assert (tool.tokens, tool.price) == ("", "")

    def test_what_is_unknown_makes_the_sum_unknown(self) -> None:
        found = drawn(new_span(TRACE, 1, kind="run"), lm(2, 1), lm(3, 1, cost=None, input_tokens=None))
        assert (found.rows[0].price, found.rows[0].tokens) == ("–", "∑ 10 → 2")


class TestBars:
    def test_stand_where_things_happened(self) -> None:
        found = drawn(new_span(TRACE, 1, took=1000), new_span(TRACE, 2, 1, at=250, took=500, first_token_ms=100))
        assert (found.rows[1].x, found.rows[1].width, found.rows[1].tick) == (250, 500, 350)
        assert (found.rows[0].self_time, found.rows[1].self_time) == ("500 ms", "")
        assert found.scale == ["0", "250 ms", "500 ms", "750 ms", "1.00 s"]

    def test_what_has_not_ended_lasts_until_the_end(self) -> None:
        found = drawn(new_span(TRACE, 1, took=1000), new_span(TRACE, 2, 1, at=400, took=None, status="unfinished"))
        assert (found.rows[1].x, found.rows[1].width, found.rows[1].duration) == (400, 600, "–")

    def test_what_outlives_the_run_makes_the_picture_longer(self) -> None:
        assert drawn(new_span(TRACE, 1, took=1000), new_span(TRACE, 2, 1, at=1000, took=1000)).total_ms == 2000

    def test_clocks_that_go_wrong_leave_no_bar_outside(self) -> None:
        found = drawn(new_span(TRACE, 1, at=-5000, took=10), new_span(TRACE, 2, at=1000, took=0))
        assert all(row.x >= 0 and row.width > 0 and row.x + row.width <= WIDTH for row in found.rows)


class TestPath:
    def test_is_marked_where_something_did_not_matter(self) -> None:
        spans = [new_span(TRACE, 1, took=1000), new_span(TRACE, 2, 1, took=900), new_span(TRACE, 3, 1, took=300)]
        found = drawn(*spans)
        assert [row.is_critical for row in found.rows] == [True, True, False]
        assert "critical path" in found.rows[1].hint

    def test_is_not_marked_where_everything_did(self) -> None:
        assert not any(row.is_critical for row in drawn(new_span(TRACE, 1), new_span(TRACE, 2, 1)).rows)
