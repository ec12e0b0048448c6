"""The options of a run that only those have who may replay traces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Permission, User
from django.test import Client

from dspyserve.models import LanguageModel, Trace
from tests.api.conftest import make_key
from tests.server import Server
from tests.websocket.test_consumer import receive, send, socket, until_over


@pytest.fixture
def server(language_model: Any, start_server: Callable[..., Server]) -> Server:
    LanguageModel.objects.create(name="other", model="demo/other")
    return start_server("uvicorn")


def signed_in(*codenames: str) -> dict[str, str]:
    """The header of a session of a user with these permissions."""
    user = User.objects.create_user(f"user-{'-'.join(codenames)}")
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(user)
    return {"Cookie": f"sessionid={client.cookies['sessionid'].value}"}


async def problem(found: Any, options: dict[str, Any]) -> tuple[str, list[str]]:
    """Code and pointers of what a run with `options` is refused with."""
    await send(found, type="run", id="a", inputs={"question": "q"}, options=options)
    message = await receive(found)
    assert message["type"] == "error", message
    return message["problem"]["code"], [entry["pointer"] for entry in message["problem"].get("errors", [])]


async def test_who_may_replay_chooses_model_version_and_trace(server: Server) -> None:
    cookies = await sync_to_async(signed_in)("replay_trace", "view_trace")
    async with socket(server, "echo", origin=server.url, additional_headers=cookies) as found:
        await send(found, type="run", id="first", inputs={"question": "q"})
        first = (await until_over(found, {"first"}))["first"][-1]["trace_id"]
        options = {"language_model": "other", "version": 0, "replay_of": first}
        await send(found, type="run", id="again", inputs={"question": "q"}, options=options)
        events = (await until_over(found, {"again"}))["again"]
        assert (events[0]["model"], events[0]["version"]) == ("demo/other", None)
        trace = await Trace.objects.aget(pk=events[-1]["trace_id"])
        assert (trace.model, trace.replay_of_id and trace.replay_of_id.hex) == ("demo/other", first)
        for refused, wanted in (
            ({"language_model": "nobody"}, ("invalid_input", ["/options/language_model"])),
            ({"language_model": ""}, ("invalid_input", ["/options/language_model"])),
            ({"version": 9}, ("invalid_input", ["/options/version"])),
            ({"version": True, "replay_of": 3}, ("invalid_input", ["/options/version", "/options/replay_of"])),
            ({"replay_of": "0" * 32}, ("trace_not_found", [])),
        ):
            assert await problem(found, refused) == wanted
    assert await Trace.objects.acount() == 2


async def test_nobody_else_may(server: Server) -> None:
    key = await sync_to_async(make_key)("run", "view_traces")
    callers = {
        "nobody": {},
        "a key": {"additional_headers": {"Authorization": f"Bearer {key}"}},
        "a user": {"additional_headers": await sync_to_async(signed_in)("view_trace"), "origin": server.url},
    }
    for caller, handshake in callers.items():
        async with socket(server, "echo", **handshake) as found:
            for options in ({"language_model": "other"}, {"version": 0}, {"replay_of": "0" * 32}):
                assert await problem(found, options) == ("forbidden", []), caller
    assert not await Trace.objects.aexists()


async def test_who_may_not_see_traces_replays_none(server: Server) -> None:
    cookies = await sync_to_async(signed_in)("replay_trace")
    async with socket(server, "echo", origin=server.url, additional_headers=cookies) as found:
        assert await problem(found, {"replay_of": "0" * 32}) == ("forbidden", [])
        await send(found, type="run", id="b", inputs={"question": "q"}, options={"version": 0})
        assert (await until_over(found, {"b"}))["b"][-1]["type"] == "run_end"


@pytest.mark.parametrize("path", ["echo", "echo/stream", "echo/batch"])
def test_rest_does_not_take_them(client: Client, language_model: Any, path: str) -> None:
    client.force_login(User.objects.create_superuser("ann"))
    inputs: Any = [{"question": "q"}] if path.endswith("batch") else {"question": "q"}
    for name, value in (("language_model", "provider"), ("version", 0), ("replay_of", "0" * 32)):
        body = {"inputs": inputs, name: value}
        response = client.post(f"/api/programs/{path}", body, content_type="application/json")
        assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, f"/{name}")
    assert not Trace.objects.exists()
