"""What is stored: nothing that a database refuses, nothing too large, nothing secret."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest

from dspyserve.events import Constant
from dspyserve.models import SpanPayload, Trace
from dspyserve.secret_patterns import without_secrets
from dspyserve.tracing import sanitize, store
from dspyserve.tracing.sanitize import REDACTED, Sanitizer, _secrets, clean_text
from tests.tracing.test_writer import rows


def clean(value: Any, **limits: int) -> Any:
    """`value` as it would be stored."""
    return Sanitizer(**limits).clean(value)


def deep(depth: int) -> Any:
    """A value nested so deep."""
    value: Any = "x"
    for _ in range(depth):
        value = {"a": [value]}
    return value


class TestPoison:
    @pytest.mark.parametrize(
        "value",
        ["a\x00b", "a\ud800b", float("nan"), float("inf"), 2**80, -(2**80), deep(500), {"a\x00": 1}, {"x": {1, 2}}],
    )
    @pytest.mark.django_db
    def test_can_be_stored(self, value: Any) -> None:
        given = rows()
        given.payloads[0] = {"inputs": clean({"value": value}), "outputs": clean(value), "messages": None}
        store.insert([given])
        stored = SpanPayload.objects.get(span__trace_id=given.trace["id"])
        assert json.dumps(stored.inputs, allow_nan=False)
        assert Trace.objects.count() == 1

    def test_what_is_meant_stays(self) -> None:
        value = {"text": "Grüße 😀\n\ttab", "n": 1, "f": 1.5, "b": True, "none": None, "list": [1, "two"]}
        assert clean(value) == value


class TestLimits:
    def test_a_long_field_is_cut_and_the_cut_stated(self) -> None:
        sanitizer = Sanitizer(field_limit=1024)
        text = sanitizer.clean("é" * 5000)
        assert text.startswith("é" * 512)
        assert text.endswith("… [1 KB of 9 KB]")
        assert sanitizer.facts == {"fields": 1, "bytes": 10_000 - 1024}

    def test_a_whole_trace_is_bounded(self) -> None:
        sanitizer = Sanitizer(field_limit=1000, budget=2500)
        cleaned = sanitizer.clean([("x" * 1000) for _ in range(10)])
        assert sum(text.count("x") for text in cleaned) <= 2500
        assert sanitizer.facts["fields"] == 8

    def test_many_items_are_cut(self) -> None:
        assert clean(list(range(20_000)))[-1] == "[10000 more]"

    def test_media_are_named_instead_of_kept(self) -> None:
        text = clean("see data:image/png;base64," + "iVBORw0KGgo" * 100)
        assert text.startswith("see [image/png, ")
        assert "sha256" in text
        assert "iVBOR" not in text


class TestSecrets:
    @pytest.mark.parametrize(
        "key",
        [
            "api_key",
            "API-Key",
            "apikey",
            "Authorization",
            "password",
            "user_password",
            "cookie",
            "token",
            "access_token",
        ],
    )
    def test_by_key(self, key: str) -> None:
        assert clean({"headers": [{key: "hunter2hunter2"}]}) == {"headers": [{key: REDACTED}]}

    @pytest.mark.parametrize("key", ["token_count", "max_tokens", "tokens", "secretary"])
    def test_counts_of_tokens_are_no_secrets(self, key: str) -> None:
        assert clean({key: 12}) == {key: 12}

    @pytest.mark.parametrize(
        "text",
        [
            "Authorization: Bearer abcdefgh12345678",
            "key sk-abcdefghijklmnop1234",
            "password=hunter2hunter2",
            "api_key: abcdefgh",
        ],
    )
    def test_by_text(self, text: str) -> None:
        cleaned = clean_text(text)
        assert REDACTED in cleaned
        assert not {"abcdefgh12345678", "sk-abcdefghijklmnop1234", "hunter2hunter2"} & set(cleaned.split())

    def test_the_values_of_keys_in_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SOME_API_KEY", "plain-looking-value")
        _secrets.cache_clear()
        try:
            assert clean("it is plain-looking-value!") == f"it is {REDACTED}!"
        finally:
            monkeypatch.undo()
            _secrets.cache_clear()

    def test_by_a_mask_of_the_project(self, settings: Any) -> None:
        settings.DSPYSERVE = {**settings.DSPYSERVE, "TRACE_MASK": "tests.tracing.test_sanitize.mask_names"}
        assert clean({"person": {"name": "Ann", "age": 3}}) == {"person": {"name": "***", "age": 3}}


class TestMemory:
    @pytest.fixture
    def searched(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The texts that were searched for secrets."""
        texts: list[str] = []

        def search(text: str, replacement: str) -> str:
            texts.append(text)
            return without_secrets(text, replacement)

        monkeypatch.setattr(sanitize, "without_secrets", search)
        return texts

    def test_a_text_that_stands_in_many_places_is_searched_once(self, searched: list[str]) -> None:
        sanitizer = Sanitizer()
        for _ in range(3):
            sanitizer.clean({"question": "What is it?", "again": ["What is it?"]})
        sanitizer.sibling(field_limit=5, budget=50).clean("What is it?")
        assert searched.count("What is it?") == 1

    def test_a_text_takes_its_size_wherever_it_stands(self) -> None:
        sanitizer = Sanitizer(field_limit=100, budget=25)
        assert sanitizer.clean(["é" * 5] * 3) == ["é" * 5, "é" * 5, "éé… [5 bytes of 10 bytes]"]
        assert sanitizer.sibling(field_limit=4, budget=100).clean("é" * 5) == "éé… [4 bytes of 10 bytes]"

    def test_names_are_searched_once_for_all_traces(self, searched: list[str]) -> None:
        for _ in range(3):
            assert Sanitizer().clean({"never_seen_before": 1, "never_seen_password": "x"}) == {
                "never_seen_before": 1,
                "never_seen_password": REDACTED,
            }
        assert sorted(searched) == ["never_seen_before", "never_seen_password"]

    def test_long_names_are_not_kept_in_memory(self, searched: list[str]) -> None:
        name = "a long name " * 10
        for _ in range(2):
            assert Sanitizer().clean({name: 1}) == {name: 1}
        assert searched == [name, name]


def mask_names(key: str, value: Any) -> Any:
    """A mask as a project writes one."""
    return "***" if key == "name" else value


class TestConstants:
    VALUE: ClassVar[dict[str, Any]] = {
        "name": "Ask",
        "instructions": "Answer, with the key sk-abcdefghijklmnopqrstuv.",
        "inputs": [{"name": "question", "password": "hidden"}],
    }

    @pytest.mark.parametrize("limits", [{}, {"field_limit": 20}, {"budget": 30}, {"budget": 110}, {"field_limit": 60}])
    def test_become_what_other_objects_become(self, limits: dict[str, int]) -> None:
        constant = Constant(self.VALUE)
        for _ in range(3):
            ours, theirs = Sanitizer(**limits), Sanitizer(**limits)
            assert ours.clean({"signature": constant}) == theirs.clean({"signature": self.VALUE})
            assert (ours.budget, ours.facts) == (theirs.budget, theirs.facts)

    def test_are_cleaned_once(self) -> None:
        constant = Constant(self.VALUE)
        first = clean([constant])[0]
        assert clean({"deep": [constant]})["deep"][0] is first

    def test_are_cleaned_again_where_other_secrets_are_known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        constant = Constant({"instructions": "Say open-sesame-please."})
        assert "open-sesame" in clean(constant)["instructions"]
        monkeypatch.setenv("DOOR_API_KEY", "open-sesame-please")
        _secrets.cache_clear()
        try:
            assert clean(constant)["instructions"] == f"Say {REDACTED}."
        finally:
            monkeypatch.undo()
            _secrets.cache_clear()

    def test_pass_the_mask_of_the_project_each_time(self, settings: Any) -> None:
        constant = Constant(self.VALUE)
        clean(constant)
        settings.DSPYSERVE = {**settings.DSPYSERVE, "TRACE_MASK": "tests.tracing.test_sanitize.mask_names"}
        assert clean(constant) == clean(self.VALUE)
        assert clean(constant)["name"] == "***"
