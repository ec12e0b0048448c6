"""The page of the playground, as the server writes it; what its script does is tested in a browser."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import clear_script_prefix, set_script_prefix

from dspyserve.models import Program
from dspyserve.programs.versions import add_version
from tests.admin.test_traces import HOSTILE, viewer
from tests.admin.test_versions import state

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def program() -> Program:
    return Program.objects.create(
        name="made", signature="question, count: int -> answer, score: float", access="public", description=HOSTILE
    )


@pytest.fixture
def admin(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ann"))
    return client


def page_of(program: Program) -> str:
    """Its playground."""
    return f"/admin/dspyserve/program/{program.pk}/playground/"


def data_of(page: str, name: str) -> Any:
    """What the page hands to its script under this name."""
    found = re.search(rf'<script id="{name}" type="application/json">(.*?)</script>', page)
    assert found is not None
    return json.loads(found[1])


def test_has_a_widget_for_each_input_and_a_box_for_each_output(admin: Client, program: Program) -> None:
    page = admin.get(page_of(program)).content.decode()
    assert re.findall(r'data-field="(\w+)" data-kind="(\w+)"', page) == [("question", "text"), ("count", "number")]
    assert re.findall(r'data-output="(\w+)"', page) == ["answer", "score"]
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page


def test_holds_no_script_and_no_style_of_its_own(admin: Client, program: Program) -> None:
    content = admin.get(page_of(program)).content.decode().split('id="content-main"')[1]
    assert not re.search(r"<script(?! id=\S+ type=\"application/json\")", content)
    assert not re.search(r"<[^>]*\s(on\w+|style)=|<style", content)


def test_says_where_program_and_sockets_are(admin: Client, program: Program, settings: Any) -> None:
    assert data_of(admin.get(page_of(program)).content.decode(), "dspyserve-addresses") == {
        "program": "made",
        "api": "http://testserver/api",
        "sockets": "/ws/programs",
        "trace": f"/admin/dspyserve/trace/{'0' * 32}/change/",
    }
    settings.DSPYSERVE = {**settings.DSPYSERVE, "WEBSOCKET_PATH": "/live/sockets/"}
    # As a server does that mounts the project below an address.
    set_script_prefix("/prefix/")
    page = admin.get(page_of(program)).content.decode()
    clear_script_prefix()
    assert data_of(page, "dspyserve-addresses")["sockets"] == "/prefix/live/sockets"


def test_models_and_versions_are_for_those_who_may_replay(program: Program) -> None:
    add_version(program, state("one", signature=program.signature), note="first")
    bob = viewer("view_program", "replay_trace")
    page = bob.get(page_of(program)).content.decode()
    assert '<option value="1">v1 first</option>' in page
    assert '<option value="demo">demo (demo/echo)</option>' in page
    user = User.objects.get(username="bob")
    user.user_permissions.remove(*user.user_permissions.filter(codename="replay_trace"))
    assert "data-option" not in bob.get(page_of(program)).content.decode()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"is_enabled": False}, "The program is not enabled."),
        ({"access": "restricted"}, "You may not run this program."),
        ({"signature": "broken"}, "cannot be read"),
    ],
)
def test_says_why_a_program_cannot_be_run(program: Program, values: dict[str, Any], reason: str) -> None:
    for name, value in values.items():
        setattr(program, name, value)
    program.save()
    page = viewer("view_program").get(page_of(program)).content.decode()
    assert reason in page
    assert "data-start" not in page


def test_the_list_of_programs_leads_there(admin: Client, program: Program) -> None:
    assert f'href="{page_of(program)}"' in admin.get("/admin/dspyserve/program/").content.decode()


def test_the_contract_is_a_table(admin: Client, program: Program) -> None:
    page = admin.get(f"/admin/dspyserve/program/{program.pk}/change/").content.decode()
    assert "<td>integer</td>" in page
    assert "<summary>JSON Schema</summary>" in page
    assert f'href="/admin/dspyserve/trace/?program={program.name}"' in page
