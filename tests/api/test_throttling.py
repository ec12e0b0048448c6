"""Rate limits by key, user and address, and what the answers say of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache import cache
from django.core.management import call_command
from django.core.management.base import SystemCheckError

from dspyserve.access import throttling
from dspyserve.models import Trace
from tests.api.conftest import API, make_key, make_user
from tests.api.test_authorisation import Shake


@pytest.fixture(autouse=True)
def _empty_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    cache.clear()
    # The middle of a window, so that none ends during a test.
    monkeypatch.setattr(throttling.time, "time", lambda: 1_800_000_030.0)


@pytest.fixture
def limits(settings: Any) -> Callable[..., None]:
    def limit(**rates: str) -> None:
        settings.DSPYSERVE = {**settings.DSPYSERVE, **{f"RATE_LIMIT_{kind.upper()}": r for kind, r in rates.items()}}

    return limit


def test_nothing_is_limited_and_nothing_said_by_default(anonymous: API) -> None:
    response = anonymous.run("echo", question="q")
    assert response.status_code == 200
    assert not {"RateLimit", "RateLimit-Policy"} & set(response.headers)


@pytest.mark.parametrize("kind", ["key", "user", "anonymous"])
def test_each_kind_of_caller_has_its_limit(anonymous: API, limits: Callable[..., None], kind: str) -> None:
    limits(**{kind: "2/min"})
    callers = {"key": lambda: API(make_key("run")), "user": lambda: API(user=make_user("u")), "anonymous": API}
    limited = callers.pop(kind)()
    first, second, third = (limited.run("echo", question="q") for _ in range(3))
    assert (first["RateLimit-Policy"], first["RateLimit"]) == ('"default";q=2;w=60', '"default";r=1;t=30')
    assert second["RateLimit"] == '"default";r=0;t=30'
    assert (third.status_code, third.json()["code"], third["Retry-After"]) == (429, "throttled", "30")
    assert third["RateLimit"] == '"default";r=0;t=30'
    assert Trace.objects.count() == 2
    for make in callers.values():
        assert make().run("echo", question="q").status_code == 200


def test_a_key_may_have_a_limit_of_its_own(anonymous: API, limits: Callable[..., None]) -> None:
    limits(key="1/min")
    api = API(make_key("run", rate_limit="3/h"))
    statuses = [api.run("echo", question="q").status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]


def test_two_keys_do_not_share_a_window(anonymous: API, limits: Callable[..., None]) -> None:
    limits(key="1/min")
    assert [API(make_key("run")).run("echo", question="q").status_code for _ in range(2)] == [200, 200]


def test_every_item_of_a_batch_counts(anonymous: API, limits: Callable[..., None]) -> None:
    limits(anonymous="4/min")
    body = {"inputs": [{"question": "q"}] * 3}
    assert anonymous.post("programs/echo/batch", body)["RateLimit"] == '"default";r=1;t=30'
    assert anonymous.post("programs/echo/batch", body).status_code == 429
    # What was refused was not counted.
    assert anonymous.run("echo", question="q").status_code == 200
    assert anonymous.run("echo", question="q").status_code == 429


def test_tries_with_a_bad_key_count_by_address(anonymous: API, limits: Callable[..., None]) -> None:
    limits(anonymous="2/min", key="100/min")
    assert [API("dsk_guess.guess").get("programs").status_code for _ in range(3)] == [401, 401, 429]


def test_runs_on_a_socket_count(anonymous: API, limits: Callable[..., None]) -> None:
    limits(user="1/min")
    api = API(user=make_user("u"))
    assert Shake(api, "echo").status_code == 200
    with pytest.raises(KeyError):
        Shake(api, "echo")  # an error in place of an event
    assert api.run("echo", question="q").status_code == 429


def test_a_window_passes(anonymous: API, limits: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    limits(anonymous="1/min")
    assert [anonymous.run("echo", question="q").status_code for _ in range(2)] == [200, 429]
    monkeypatch.setattr(throttling.time, "time", lambda: 1_800_000_060.0)
    assert anonymous.run("echo", question="q").status_code == 200


def test_without_the_cache_nobody_is_refused(
    anonymous: API, limits: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits(anonymous="1/min")

    def away(*args: Any, **kwargs: Any) -> Any:
        raise ConnectionError

    monkeypatch.setattr(throttling.cache, "incr", away)
    assert [anonymous.run("echo", question="q").status_code for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize("rate", ["5", "5/week", "0/min", "-1/min", "many"])
def test_a_rate_that_cannot_be_read_is_a_system_check(limits: Callable[..., None], rate: str) -> None:
    limits(key=rate)
    with pytest.raises(SystemCheckError, match=r"dspyserve\.E004"):
        call_command("check")
