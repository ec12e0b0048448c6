"""Callers of every kind, and a client that calls the API in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from dspyserve.models import APIKey, Program

ALL_SCOPES = APIKey.Scope.values


def make_key(*scopes: str, programs: Any = None, **values: Any) -> str:
    """The token of a new key with `scopes`, for all programs or for those of the names `programs`."""
    key = APIKey(name="test", scopes=list(scopes), all_programs=programs is None, **values)
    token = key.issue()
    key.save()
    key.programs.set(Program.objects.filter(name__in=programs or ()))
    return token


def make_user(name: str, *permissions: str) -> User:
    """A user with these permissions of dspyserve."""
    user = User.objects.create_user(name, password="x")
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions, content_type__app_label="dspyserve"))
    return user


class API:
    """Calls the API in this process."""

    def __init__(self, token: str | None = None, user: User | None = None) -> None:
        self.client = Client()
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        if user is not None:
            self.client.force_login(user)

    def get(self, path: str, **query: Any) -> Any:
        """GET below `/api/`."""
        return self.client.get(f"/api/{path}", query, headers=self.headers)

    def post(self, path: str, body: Any, **headers: str) -> Any:
        """POST JSON below `/api/`."""
        return self.client.post(
            f"/api/{path}", json.dumps(body), content_type="application/json", headers={**self.headers, **headers}
        )

    def run(self, program: str, **inputs: Any) -> Any:
        """Run a program."""
        return self.post(f"programs/{program}", {"inputs": inputs})


def content(response: Any) -> bytes:
    """The whole body, streamed or not."""
    if not response.streaming:
        return bytes(response.content)

    async def read() -> bytes:
        return b"".join([chunk async for chunk in response.streaming_content])

    return async_to_sync(read)()


@pytest.fixture
def anonymous(language_model: Any) -> API:
    return API()


@pytest.fixture
def with_key(language_model: Any) -> Callable[..., API]:
    return lambda *scopes, **values: API(make_key(*scopes, **values))


def yesterday() -> Any:
    return timezone.now() - timedelta(days=1)
