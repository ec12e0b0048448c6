"""Pages of a project that groups the digits of its numbers: what browsers and servers read stays ungrouped."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.test import Client

from dspyserve.models import Feedback, Program, ProgramVersion
from tests.admin.rows import LIST, make_span, make_trace, page_url
from tests.admin.test_dashboard import insert

pytestmark = pytest.mark.django_db

NUMBER = 1_234


@pytest.fixture
def ann(settings: object) -> User:
    settings.USE_THOUSAND_SEPARATOR = True  # type: ignore[attr-defined]
    return User.objects.create_superuser("ann")


@pytest.fixture
def reviewer(client: Client, ann: User) -> Client:
    client.force_login(ann)
    return client


def grouped(client: Client, address: str) -> list[str]:
    """Attributes of the page whose numbers are grouped, apart from those that people read."""
    page = client.get(address).content.decode().split('id="content"')[1]
    found = re.findall(r'\s([\w-]+)="([^"]*)"', page)
    return [f"{name}={value}" for name, value in found if name not in ("title", "aria-label") and "1,2" in value]


def test_feedback_is_edited_and_deleted(reviewer: Client, ann: User) -> None:
    trace = make_trace(span_count=NUMBER, duration_ms=NUMBER)
    make_span(trace, kind="run", took=NUMBER)
    Feedback.objects.create(pk=NUMBER, trace=trace, name="review", score=1, author=f"user:{ann.pk}", user=ann)
    assert grouped(reviewer, page_url(trace)) == []
    page = reviewer.get(page_url(trace)).content.decode()
    (pk,) = re.findall(r'name="delete" value="([^"]+)"', page)
    reviewer.post(f"{LIST}{trace.pk}/review/", {"delete": pk})
    assert not Feedback.objects.exists()


def test_charts_are_drawn(reviewer: Client) -> None:
    insert(3, duration_ms=NUMBER)
    page = reviewer.get(f"{LIST}dashboard/").content.decode()
    assert 'viewBox="0 0 1000 200"' in page
    assert "1,000" not in "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))


def test_versions_are_compared(reviewer: Client) -> None:
    program = Program.objects.create(name="made", signature="question -> answer")
    for number in (NUMBER, NUMBER + 1):
        ProgramVersion.objects.create(program=program, number=number, state={})
    program.active_version = ProgramVersion.objects.get(number=NUMBER)
    program.save()
    base = f"/admin/dspyserve/program/{program.pk}/"
    for page in ("change/", f"versions/{NUMBER + 1}/", f"versions/compare/?a={NUMBER}&b={NUMBER + 1}"):
        assert grouped(reviewer, base + page) == []
