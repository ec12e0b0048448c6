"""`POST /api/programs/<name>/batch`: every item an execution of its own, in the order of the items or as they end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.test import AsyncClient

from dspyserve import runs
from dspyserve.errors import Overloaded
from dspyserve.events import Caller
from dspyserve.models import Program, Trace
from dspyserve.programs.catalogue import catalogue
from tests.api.conftest import API
from tests.load.openai_server import OpenAIServer


def items(*questions: str) -> dict[str, Any]:
    return {"inputs": [{"question": question} for question in questions]}


@pytest.mark.parametrize("program", ["echo", "threaded"])
def test_results_come_in_the_order_of_the_items(anonymous: API, program: str) -> None:
    questions = [f"marker-{number}- @@delay={0.2 - number / 50}@@" for number in range(8)]
    response = anonymous.post(f"programs/{program}/batch", {**items(*questions), "session_id": "s", "tags": ["t"]})
    body = response.json()
    assert [item["index"] for item in body["results"]] == list(range(8))
    for number, item in enumerate(body["results"]):
        assert f"marker-{number}-" in item["outputs"]["answer"]
    traces = Trace.objects.filter(batch_id=body["batch_id"])
    assert {trace.id.hex for trace in traces} == {item["trace_id"] for item in body["results"]}
    assert {(trace.transport, trace.session_id, tuple(trace.tags)) for trace in traces} == {("batch", "s", ("t",))}
    assert response["X-Batch-Id"] == body["batch_id"]


def test_an_item_that_fails_does_not_take_the_others_along(anonymous: API) -> None:
    body = items("good", "@@status=500@@", "good")
    body["inputs"].insert(1, {"question": 3})
    body["inputs"].append("nonsense")
    results = anonymous.post("programs/echo/batch", body).json()["results"]
    codes = [item.get("code") for item in results]
    assert codes == [None, "invalid_input", "lm_error", None, "invalid_input"]
    assert results[1]["errors"][0]["pointer"] == "/inputs/1/question"
    assert results[4]["errors"][0]["pointer"] == "/inputs/4"
    assert Trace.objects.filter(status="failed").count() == 1


async def post_for_lines(body: Any, **headers: str) -> Any:
    """The streamed response of a batch, on the loop of the test: its items run on there."""
    return await AsyncClient().post(
        "/api/programs/echo/batch",
        json.dumps(body),
        content_type="application/json",
        headers={"Accept": "application/x-ndjson", **headers},
    )


@pytest.mark.usefixtures("language_model")
async def test_lines_come_as_the_items_end() -> None:
    response = await post_for_lines(items("@@delay=0.6@@ slow", "fast"))
    assert response["Content-Type"] == "application/x-ndjson"
    lines = [json.loads(line) async for line in response.streaming_content]
    assert [line["index"] for line in lines] == [1, 0]
    for line in lines:
        assert (await Trace.objects.aget(pk=line["trace_id"])).batch_id == response["X-Batch-Id"]


@pytest.mark.usefixtures("language_model")
async def test_a_client_that_leaves_stops_the_items() -> None:
    response = await post_for_lines(items(*["@@delay=20@@"] * 3))
    await asyncio.sleep(0.3)
    await sync_to_async(response.close)()
    await asyncio.sleep(0.3)
    statuses = [trace.status async for trace in Trace.objects.all()]
    assert statuses == ["cancelled"] * 3


@pytest.mark.usefixtures("language_model")
async def test_with_an_idempotency_key_the_items_outlive_their_client_and_the_lines_come_again() -> None:
    key = {"Idempotency-Key": "k1"}
    response = await post_for_lines(items("@@delay=0.3@@ a", "b"), **key)
    await sync_to_async(response.close)()
    while await Trace.objects.acount() < 2:
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.2)
    again = await post_for_lines(items("@@delay=0.3@@ a", "b"), **key)
    assert again["Idempotent-Replayed"] == "true"
    assert [json.loads(line)["index"] for line in again.content.splitlines()] == [1, 0]
    assert again["X-Batch-Id"] == response["X-Batch-Id"]
    assert await Trace.objects.acount() == 2


def test_a_small_program_takes_the_items_one_after_the_other(anonymous: API, provider: OpenAIServer) -> None:
    Program.objects.filter(name="echo").update(max_concurrency=2, max_queue=0)
    catalogue.forget()
    results = anonymous.post("programs/echo/batch", items(*["@@delay=0.05@@"] * 7)).json()["results"]
    assert [item["outputs"] is not None for item in results] == [True] * 7
    assert provider.peak_in_flight <= 2


@pytest.mark.usefixtures("language_model")
async def test_a_batch_leaves_the_queue_to_others() -> None:
    await Program.objects.filter(name="echo").aupdate(max_concurrency=1, max_queue=1)
    catalogue.forget()
    response = await post_for_lines(items(*["@@delay=0.1@@"] * 6))
    await asyncio.sleep(0.05)
    other = await runs.aexecute("echo", {"question": "between"})
    assert "between" in other.outputs["answer"]
    lines = [json.loads(line) async for line in response.streaming_content]
    assert [line["index"] for line in lines if "outputs" in line] == list(range(6))


@pytest.mark.usefixtures("language_model")
def test_an_item_without_a_place_waits_for_another_of_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = {"b": 2, "c": 1}
    execute = runs.batch.aexecute

    async def crowded(name: str, inputs: Any, **options: Any) -> Any:
        if refusals.get(inputs["question"], 0):
            refusals[inputs["question"]] -= 1
            raise Overloaded("Full.")
        return await execute(name, inputs, **options)

    monkeypatch.setattr(runs.batch, "aexecute", crowded)
    # b is refused again when a has ended, and has its place when d has.
    assert outcomes("@@delay=0.2@@", "b", "c", "@@delay=0.5@@") == {
        0: "succeeded",
        1: "succeeded",
        2: "succeeded",
        3: "succeeded",
    }


@pytest.mark.usefixtures("language_model")
def test_items_without_a_place_are_told_so_when_nothing_of_the_batch_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(name: str, inputs: Any, **options: Any) -> Any:
        raise Overloaded("Full.")

    monkeypatch.setattr(runs.batch, "aexecute", full)
    assert outcomes("a", "b") == {0: "overloaded", 1: "overloaded"}


def outcomes(*questions: str) -> dict[int, str]:
    """What became of each item."""

    async def run() -> dict[int, str]:
        found = {}
        async for index, outcome in runs.abatch("echo", items(*questions)["inputs"], caller=Caller(batch_id="b" * 32)):
            found[index] = getattr(outcome, "code", "succeeded")
        return found

    return async_to_sync(run)()


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"inputs": []}, "/inputs"),
        ({"inputs": {"question": "q"}}, "/inputs"),
        ({}, "/inputs"),
        ({"inputs": [{"question": "q"}], "other": 1}, "/other"),
        (items(*["q"] * 101), "/inputs"),
    ],
)
def test_bad_bodies_are_refused_with_a_pointer(anonymous: API, body: Any, pointer: str) -> None:
    response = anonymous.post("programs/echo/batch", body)
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, pointer)
    assert not Trace.objects.exists()
