"""API keys in the admin: shown once, and nobody grants what they do not have."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from dspyserve.models import APIKey, LanguageModel, Program
from tests.api.conftest import API

pytestmark = pytest.mark.usefixtures("language_model")

LIST = "/admin/dspyserve/apikey/"
GOOD: dict[str, Any] = {"name": "ci", "is_active": "on", "scopes": ["run"], "all_programs": "on"}


def staff(*codenames: str) -> Client:
    """A member of the staff with these permissions, and those to make and change keys."""
    user = User.objects.create_user("bob", is_staff=True)
    allowed = ("add_apikey", "change_apikey", "view_apikey", *codenames)
    user.user_permissions.set(Permission.objects.filter(codename__in=allowed))
    client = Client()
    client.force_login(user)
    return client


def superuser() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("ann"))
    return client


def test_a_new_key_is_shown_once_and_works() -> None:
    client = superuser()
    page = client.post(LIST + "add/", GOOD, follow=True).content.decode()
    token = re.search(r"dsk_[0-9a-f]{12}\.[\w-]{43}", page)
    assert token is not None
    assert API(token.group()).run("private", question="q").status_code == 200
    key = APIKey.objects.get()
    for path in (LIST, f"{LIST}{key.pk}/change/"):
        again = client.get(path).content.decode()
        assert key.prefix in again
        assert token.group().partition(".")[2] not in again
    client.post(f"{LIST}{key.pk}/change/", {**GOOD, "name": "other"})
    assert APIKey.objects.get().digest == key.digest
    log = client.get(f"{LIST}{key.pk}/history/").content.decode()
    assert token.group() not in log


def test_a_key_is_revoked_by_clearing_active() -> None:
    client = superuser()
    token = re.search(r"dsk_[\w.-]+", client.post(LIST + "add/", GOOD, follow=True).content.decode())
    assert token is not None
    key = APIKey.objects.get()
    client.post(f"{LIST}{key.pk}/change/", {**GOOD, "is_active": ""})
    assert API(token.group()).run("private", question="q").status_code == 401
    assert "revoked" in client.get(LIST).content.decode()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"scopes": ["run", "view_payloads"]}, "You may not grant: view_payloads."),
        ({"all_programs": "on"}, "You may not run all programs yourself."),
        ({"programs": ["restricted"]}, "You may not run: restricted."),
        ({"user": "superuser"}, "You may not make keys in the name of other users."),
        ({"rate_limit": "often"}, "is no rate such as 600/min"),
    ],
)
def test_nobody_grants_what_they_do_not_have(values: dict[str, Any], told: str) -> None:
    client = staff("view_trace")
    root = User.objects.create_superuser("root")
    ids = dict(Program.objects.values_list("name", "pk"))
    body: dict[str, Any] = {"name": "ci", "is_active": "on", "scopes": ["run"], "programs": ["private"], **values}
    body["programs"] = [ids[name] for name in body["programs"]]
    if "user" in body:
        body["user"] = root.pk
    page = client.post(LIST + "add/", body).content.decode()
    assert told in page.replace("&#x27;", "'")
    assert not APIKey.objects.exists()


def test_what_they_have_they_may_grant() -> None:
    client = staff("view_trace", "run_program")
    restricted = Program.objects.get(name="restricted")
    body = {"name": "ci", "is_active": "on", "scopes": ["run", "view_traces"], "programs": [restricted.pk]}
    response = client.post(LIST + "add/", body)
    assert response.status_code == 302, response.content.decode()
    key = APIKey.objects.get()
    assert (key.scopes, list(key.programs.all())) == (["run", "view_traces"], [restricted])


def test_what_a_key_has_stays_when_others_change_it() -> None:
    superuser().post(LIST + "add/", {**GOOD, "scopes": ["run", "view_payloads"]})
    key = APIKey.objects.get()
    client = staff()
    body = {"name": "renamed", "is_active": "on", "scopes": ["run", "view_payloads"], "all_programs": "on"}
    assert client.post(f"{LIST}{key.pk}/change/", body).status_code == 302
    assert APIKey.objects.get().name == "renamed"


def test_grants_of_a_program_are_made_on_its_page() -> None:
    page = superuser().get(f"/admin/dspyserve/program/{Program.objects.get(name='restricted').pk}/change/").content
    assert b'name="users"' in page
    assert b'name="groups"' in page


@pytest.mark.parametrize(("codename", "status"), [("change_program", 403), ("change_languagemodel", 200)])
def test_language_models_are_edited_by_a_permission_of_their_own(codename: str, status: int) -> None:
    row = LanguageModel.objects.get(name="provider")
    assert staff(codename).get(f"/admin/dspyserve/languagemodel/{row.pk}/change/").status_code == status
