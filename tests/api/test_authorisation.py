"""Who may do what: one table of every endpoint and of the socket, for every kind of caller."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import Group, User
from django.test import Client

from dspyserve.models import APIKey, Program, Trace
from dspyserve.websocket.messages import CloseCode
from tests.api.conftest import API, content, make_key, make_user, yesterday

ECHO, PRIVATE, RESTRICTED = "echo", "private", "restricted"
BODY: dict[str, Any] = {"inputs": {"question": "q"}}
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "q"}]}
BATCH: dict[str, Any] = {"inputs": [{"question": "q"}]}

CALLERS: dict[str, Callable[[], API]] = {
    "anonymous": API,
    "an unknown key": lambda: API("dsk_000000000000.secret"),
    "an expired key": lambda: API(make_key(*APIKey.Scope.values, expires_at=yesterday())),
    "a revoked key": lambda: API(make_key(*APIKey.Scope.values, is_active=False)),
    "a key of an inactive user": lambda: API(
        make_key(*APIKey.Scope.values, user=User.objects.create_user("gone", is_active=False))
    ),
    "a key without scope": lambda: API(make_key()),
    "a key that runs": lambda: API(make_key("run")),
    "a key that runs another": lambda: API(make_key("run", programs=[ECHO])),
    "a key that runs none": lambda: API(make_key("run", programs=[])),
    "a key that views traces": lambda: API(make_key("view_traces")),
    "a key that views payloads": lambda: API(make_key("view_traces", "view_payloads")),
    "a key that views other traces": lambda: API(make_key("view_traces", "view_payloads", programs=[ECHO])),
    "a key that gives feedback": lambda: API(make_key("give_feedback")),
    "a key that exports": lambda: API(make_key("export")),
    "a user": lambda: API(user=make_user("u")),
    "a user who runs": lambda: API(user=make_user("u", "run_program")),
    "a user with a grant": lambda: API(user=granted(make_user("u"))),
    "a user in a group with a grant": lambda: API(user=granted_by_group(make_user("u"))),
    "a user who views traces": lambda: API(user=make_user("u", "view_trace")),
    "a user who views payloads": lambda: API(user=make_user("u", "view_trace", "view_payload")),
    "a user who gives feedback": lambda: API(user=make_user("u", "add_feedback")),
    "a user who exports": lambda: API(user=make_user("u", "export_trace")),
    "a superuser": lambda: API(user=User.objects.create_superuser("root", password="x")),
}

OPERATIONS: dict[str, Callable[[API, Trace], Any]] = {
    "health": lambda api, trace: api.get("health/live"),
    "ready": lambda api, trace: api.get("health/ready"),
    "docs": lambda api, trace: api.get("docs"),
    "openapi": lambda api, trace: api.get("openapi.json"),
    "list": lambda api, trace: api.get("programs"),
    "run public": lambda api, trace: api.post(f"programs/{ECHO}", BODY),
    "run": lambda api, trace: api.post(f"programs/{PRIVATE}", BODY),
    "run restricted": lambda api, trace: api.post(f"programs/{RESTRICTED}", BODY),
    "describe restricted": lambda api, trace: api.get(f"programs/{RESTRICTED}"),
    "stream restricted": lambda api, trace: api.post(f"programs/{RESTRICTED}/stream", BODY),
    "batch restricted": lambda api, trace: api.post(f"programs/{RESTRICTED}/batch", BATCH),
    "models": lambda api, trace: api.get("openai/v1/models"),
    "chat restricted": lambda api, trace: api.post("openai/v1/chat/completions", {"model": RESTRICTED, **CHAT}),
    "traces": lambda api, trace: api.get("traces"),
    "trace": lambda api, trace: api.get(f"traces/{trace.id.hex}"),
    "payload": lambda api, trace: api.get(f"traces/{trace.id.hex}/spans/{trace.spans.all()[0].span_id}"),
    "feedback": lambda api, trace: api.post(f"traces/{trace.id.hex}/feedback", {"name": "good", "score": 1}),
    "export": lambda api, trace: api.get("traces/export"),
    "socket public": lambda api, trace: Shake(api, ECHO),
    "socket": lambda api, trace: Shake(api, PRIVATE),
    "socket restricted": lambda api, trace: Shake(api, RESTRICTED),
}

OPEN = {"health": 200, "ready": 200, "docs": 200}
FOR_ALL = OPEN | {"openapi": 200, "models": 200, "list": 200, "run public": 200, "socket public": 200}
BAD = dict.fromkeys(OPERATIONS, 401) | OPEN
NOBODY = dict.fromkeys(OPERATIONS, 401) | FOR_ALL
KNOWN = dict.fromkeys(OPERATIONS, 403) | FOR_ALL
RUNS = {"run": 200, "socket": 200}
RUNS_RESTRICTED = RUNS | {name: 200 for name in OPERATIONS if name.endswith(" restricted")}
VIEWS = {"traces": 200, "trace": 200}

EXPECTED: dict[str, dict[str, int]] = {
    "anonymous": NOBODY,
    "an unknown key": BAD,
    "an expired key": BAD,
    "a revoked key": BAD,
    "a key of an inactive user": BAD,
    "a key without scope": KNOWN,
    "a key that runs": KNOWN | RUNS_RESTRICTED,
    "a key that runs another": KNOWN,
    "a key that runs none": KNOWN,
    "a key that views traces": KNOWN | VIEWS,
    "a key that views payloads": KNOWN | VIEWS | {"payload": 200},
    "a key that views other traces": KNOWN | {"traces": 200, "trace": 404, "payload": 404},
    "a key that gives feedback": KNOWN | {"feedback": 201},
    "a key that exports": KNOWN | {"export": 200},
    "a user": KNOWN | RUNS,
    "a user who runs": KNOWN | RUNS_RESTRICTED,
    "a user with a grant": KNOWN | RUNS_RESTRICTED,
    "a user in a group with a grant": KNOWN | RUNS_RESTRICTED,
    "a user who views traces": KNOWN | RUNS | VIEWS,
    "a user who views payloads": KNOWN | RUNS | VIEWS | {"payload": 200},
    "a user who gives feedback": KNOWN | RUNS | {"feedback": 201},
    "a user who exports": KNOWN | RUNS | {"export": 200},
    "a superuser": dict.fromkeys(OPERATIONS, 200) | {"feedback": 201},
}


def granted(user: User) -> User:
    Program.objects.get(name=RESTRICTED).users.add(user)
    return user


def granted_by_group(user: User) -> User:
    group = Group.objects.create(name="runners")
    user.groups.add(group)
    Program.objects.get(name=RESTRICTED).groups.add(group)
    return user


class Shake:
    """A handshake at the socket, and a run; refusals as the statuses that HTTP has for them."""

    STATUSES = {CloseCode.UNAUTHENTICATED: 401, CloseCode.FORBIDDEN: 403}

    def __init__(self, api: API, program: str) -> None:
        self.status_code = asyncio.run(self._shake(api, program))
        self.content = b""

    async def _shake(self, api: API, program: str) -> int:
        from project.asgi import application

        cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in api.client.cookies.items())
        headers = [(b"host", b"localhost"), (b"cookie", cookies.encode())]
        headers += [(name.lower().encode(), value.encode()) for name, value in api.headers.items()]
        socket = WebsocketCommunicator(application, f"/ws/programs/{program}", headers, ["dspyserve.v1"])
        await socket.connect(timeout=10)
        await socket.send_json_to({"type": "run", "id": "1", **BODY})
        while True:
            message = await socket.receive_output(timeout=10)
            if message["type"] == "websocket.close":
                return self.STATUSES[message["code"]]
            if json.loads(message["text"])["event"]["type"] == "run_end":
                await socket.disconnect()
                return 200


@pytest.fixture
def trace(language_model: Any) -> Trace:
    """A trace of the restricted program."""
    from dspyserve import runs

    result = runs.execute(RESTRICTED, {"question": "q"})
    return Trace.objects.get(pk=result.trace_id)


@pytest.mark.parametrize("caller", CALLERS)
def test_every_caller_at_every_door(caller: str, trace: Trace) -> None:
    api = CALLERS[caller]()
    found = {}
    for name, operation in OPERATIONS.items():
        response = operation(api, trace)
        found[name] = response.status_code
        if response.status_code == 401 and not isinstance(response, Shake):
            assert response["WWW-Authenticate"] == "Bearer"
            assert b'"code":"unauthenticated"' in response.content
    assert found == EXPECTED[caller]


@pytest.mark.parametrize("caller", CALLERS)
def test_programs_are_listed_for_those_who_may_run_them(caller: str, trace: Trace) -> None:
    response = CALLERS[caller]().get("programs")
    if response.status_code == 401:
        assert EXPECTED[caller]["list"] == 401
        return
    listed = {item["name"] for item in response.json()["items"]}
    expected = EXPECTED[caller]
    assert [ECHO in listed, PRIVATE in listed, RESTRICTED in listed] == [
        True,
        expected["run"] == 200,
        expected["run restricted"] == 200,
    ]


def test_texts_of_traces_are_for_those_who_may_see_payloads(trace: Trace) -> None:
    shape, texts = API(make_key("view_traces", "export")), API(make_key("view_traces", "view_payloads", "export"))
    for path in ("traces", f"traces/{trace.id.hex}", "traces/export"):
        for api, is_there in ((shape, False), (texts, True)):
            text = content(api.get(path))
            assert (b"input_preview" in text) is is_there, path
            assert (b'"messages":' in text) is (is_there and path == "traces/export")


def test_a_key_is_not_a_session_and_needs_no_csrf_token(trace: Trace) -> None:
    client = Client(enforce_csrf_checks=True)
    headers = {"Authorization": f"Bearer {make_key('run')}"}
    body = json.dumps(BODY)
    response = client.post(f"/api/programs/{PRIVATE}", body, content_type="application/json", headers=headers)
    assert response.status_code == 200


def test_the_key_decides_even_in_the_session_of_a_superuser(trace: Trace) -> None:
    api = API(make_key(), User.objects.create_superuser("root", password="x"))
    assert api.post(f"programs/{PRIVATE}", BODY).status_code == 403
