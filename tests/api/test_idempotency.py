"""`Idempotency-Key`: a repeated request is executed once, and answered as the first time."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest
from asgiref.sync import async_to_sync
from django.test import AsyncClient
from django.utils import timezone

from dspyserve.api import idempotency
from dspyserve.models import IdempotencyKey, Program, Trace
from dspyserve.programs.catalogue import catalogue
from tests.api.conftest import API, make_key
from tests.load.openai_server import OpenAIServer
from tests.server import Server

KEY = {"Idempotency-Key": "order-66"}
BODY: dict[str, Any] = {"inputs": {"question": "secret question"}}


class TestReplay:
    def test_gives_the_same_answer_without_a_second_execution(self, anonymous: API, provider: OpenAIServer) -> None:
        first = anonymous.post("programs/echo", BODY, **KEY)
        second = anonymous.post("programs/echo", BODY, **KEY)
        assert (first.status_code, second.status_code) == (200, 200)
        assert first.content == second.content
        assert "Idempotent-Replayed" not in first
        assert second["Idempotent-Replayed"] == "true"
        assert first["X-Trace-Id"] == second["X-Trace-Id"]
        assert Trace.objects.count() == len(provider.requests) == 1

    def test_of_a_failure_gives_the_failure(self, anonymous: API) -> None:
        body = {"inputs": {"question": "@@status=500@@"}}
        first, second = (anonymous.post("programs/echo", body, **KEY) for _ in range(2))
        assert (first.status_code, first.json()["code"]) == (502, "lm_error")
        assert (second.status_code, second.content) == (502, first.content)
        assert second["Content-Type"] == "application/problem+json"
        assert Trace.objects.count() == 1

    def test_of_a_batch(self, anonymous: API) -> None:
        body = {"inputs": [{"question": "a"}, {"question": 3}]}
        first, second = (anonymous.post("programs/echo/batch", body, **KEY) for _ in range(2))
        assert first.content == second.content
        assert second["X-Batch-Id"] == first.json()["batch_id"]
        assert Trace.objects.count() == 1

    def test_is_refused_to_another_body(self, anonymous: API) -> None:
        anonymous.post("programs/echo", BODY, **KEY)
        response = anonymous.post("programs/echo", {"inputs": {"question": "another"}}, **KEY)
        assert (response.status_code, response.json()["code"]) == (422, "idempotency_key_reused")
        assert Trace.objects.count() == 1

    def test_is_for_one_caller_and_one_address(self, anonymous: API) -> None:
        ann, bob = API(make_key("run")), API(make_key("run"))
        for api in (anonymous, ann, bob):
            for program in ("echo", "threaded"):
                assert "Idempotent-Replayed" not in api.post(f"programs/{program}", BODY, **KEY)
        assert Trace.objects.count() == 6

    def test_ends_after_a_day(self, anonymous: API) -> None:
        anonymous.post("programs/echo", BODY, **KEY)
        IdempotencyKey.objects.update(expires_at=timezone.now(), lease_until=timezone.now() - timedelta(hours=24))
        assert "Idempotent-Replayed" not in anonymous.post("programs/echo", {"inputs": {"question": "x"}}, **KEY)
        assert Trace.objects.count() == 2

    def test_survives_a_new_secret_key(self, anonymous: API, settings: Any) -> None:
        first = anonymous.post("programs/echo", BODY, **KEY)
        settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", [settings.SECRET_KEY]
        assert anonymous.post("programs/echo", BODY, **KEY).content == first.content
        settings.SECRET_KEY_FALLBACKS = []
        assert anonymous.post("programs/echo", BODY, **KEY).json()["code"] == "idempotency_key_reused"

    def test_does_not_need_readable_texts_in_the_database(self, anonymous: API) -> None:
        anonymous.post("programs/echo", BODY, **KEY)
        stored = json.dumps(IdempotencyKey.objects.values().get(), default=str)
        assert "order-66" not in stored
        assert "secret question" not in stored + repr(bytes(IdempotencyKey.objects.get().body or b""))


class TestNothingIsKept:
    @pytest.mark.parametrize(
        ("program", "body", "status"),
        [("echo", {"inputs": {"question": 3}}, 422), ("private", BODY, 401), ("absent", BODY, 404), ("echo", {}, 422)],
    )
    def test_of_a_request_that_executed_nothing(self, anonymous: API, program: str, body: Any, status: int) -> None:
        assert anonymous.post(f"programs/{program}", body, **KEY).status_code == status
        assert not IdempotencyKey.objects.exists()

    def test_of_an_overload(self, anonymous: API) -> None:
        Program.objects.filter(name="blocking").update(max_concurrency=1, max_queue=0)
        catalogue.forget()

        async def both() -> list[Any]:
            client = AsyncClient()
            import asyncio

            body = json.dumps({"inputs": {"question": "q"}, "timeout": 1})
            posts = [
                client.post("/api/programs/blocking", body, content_type="application/json", headers=headers)
                for headers in ({}, KEY)
            ]
            return await asyncio.gather(*posts)

        responses = async_to_sync(both)()
        assert sorted(response.status_code for response in responses) == [503, 504]
        assert IdempotencyKey.objects.filter(status=None).count() == 0

    @pytest.mark.parametrize("key", ["", "a b", "ü", "x" * 256])
    def test_under_a_key_that_cannot_be_one(self, anonymous: API, key: str) -> None:
        response = anonymous.post("programs/echo", BODY, **{"Idempotency-Key": key})
        assert (response.status_code, response.json()["code"]) == (400, "invalid_header")
        assert not Trace.objects.exists()


class TestInFlight:
    def test_is_told_while_the_first_is_under_way(self, anonymous: API) -> None:
        now = timezone.now()
        anonymous.post("programs/echo", BODY, **KEY)
        IdempotencyKey.objects.update(status=None, body=None, lease_until=now + timedelta(seconds=30))
        response = anonymous.post("programs/echo", BODY, **KEY)
        assert (response.status_code, response.json()["code"]) == (409, "request_in_flight")
        assert response["Retry-After"] == "1"

    def test_ends_when_the_process_is_gone(self, anonymous: API) -> None:
        anonymous.post("programs/echo", BODY, **KEY)
        IdempotencyKey.objects.update(status=None, body=None, lease_until=timezone.now() - timedelta(seconds=1))
        assert anonymous.post("programs/echo", BODY, **KEY).status_code == 200
        assert Trace.objects.count() == 2

    def test_is_renewed_while_the_execution_lasts(self, anonymous: API, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(idempotency, "_RENEW", 0.05)
        monkeypatch.setattr(idempotency, "LEASE", timedelta(seconds=0.01))
        leases: list[Any] = []
        extend = idempotency._extend

        def noted(row_id: int) -> None:
            extend(row_id)
            leases.append(IdempotencyKey.objects.get(pk=row_id).lease_until)

        monkeypatch.setattr(idempotency, "_extend", noted)
        anonymous.post("programs/echo", {"inputs": {"question": "@@delay=0.4@@"}}, **KEY)
        assert len(leases) >= 3
        assert leases == sorted(leases)

    async def test_outlasts_a_client_that_leaves(self, language_model: Any) -> None:
        import asyncio

        body = json.dumps({"inputs": {"question": "@@delay=0.4@@"}})
        request = AsyncClient().post("/api/programs/echo", body, content_type="application/json", headers=KEY)
        task = asyncio.ensure_future(request)
        await asyncio.sleep(0.2)
        task.cancel()
        async with asyncio.timeout(10):
            while not await IdempotencyKey.objects.filter(status=200).aexists():
                await asyncio.sleep(0.05)
        again = await AsyncClient().post("/api/programs/echo", body, content_type="application/json", headers=KEY)
        assert again["Idempotent-Replayed"] == "true"
        assert await Trace.objects.acount() == 1


@pytest.mark.parametrize("processes", [1, 2])
def test_two_posts_at_once_execute_once(
    language_model: Any, provider: OpenAIServer, start_server: Callable[..., Server], processes: int
) -> None:
    servers = [start_server() for _ in range(processes)]
    addresses = [f"{servers[number % processes].url}/api/programs/echo" for number in range(8)]
    barrier = threading.Barrier(8)

    def post(address: str, round_: int) -> httpx.Response:
        body = {"inputs": {"question": f"@@delay=0.1@@ {round_}"}}
        barrier.wait()
        return httpx.post(address, json=body, headers={"Idempotency-Key": f"round-{round_}"}, timeout=30)

    with ThreadPoolExecutor(8) as pool:
        for round_ in range(5):
            responses = list(pool.map(post, addresses, [round_] * 8))
            answered = [response for response in responses if response.status_code == 200]
            assert {response.status_code for response in responses} <= {200, 409}
            assert len({response.content for response in answered}) == 1
    assert Trace.objects.count() == len(provider.requests) == 5
