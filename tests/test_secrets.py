"""Secrets that are planted wherever they may come in, and looked for wherever they must not come out."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.core.exceptions import ValidationError

from dspyserve.models import LanguageModel, Trace
from dspyserve.programs.catalogue import catalogue
from dspyserve.tracing import sanitize
from dspyserve.tracing.export import jsonl
from tests.api.conftest import API, content, make_key
from tests.api.test_authorisation import Shake

PROVIDER_KEY = "planted-provider-key-5f2c81"
BEARER = "planted-bearer-77aa01.b-c_d"
PASSWORD = "planted-password-93"
SK = "sk-planted0123456789abcdef"
NESTED = "planted-nested-61"
TEXT = f"Authorization: Bearer {BEARER}, password={PASSWORD}, my key is {SK} or {PROVIDER_KEY}."


@pytest.fixture
def own_key(language_model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A language model with secrets in its parameters, past all validation, and a key of dspyserve's own."""
    monkeypatch.setenv("PLANTED_API_KEY", PROVIDER_KEY)
    sanitize._secrets.cache_clear()
    parameters = {"temperature": 0.1, "user": SK, "metadata": {"access_token": NESTED}}
    LanguageModel.objects.update(api_key_env="PLANTED_API_KEY", parameters=parameters)
    catalogue.forget()
    yield make_key("run", "view_traces", "view_payloads", "give_feedback", "export")
    sanitize._secrets.cache_clear()


def stored() -> str:
    """Everything that is in the database, but for the row that was planted."""
    rows: list[Any] = []
    for model in apps.get_models():
        if model is not LanguageModel:
            rows += [[model.__name__, values] for values in model._default_manager.values()]
    return json.dumps(rows, default=lambda value: repr(bytes(value)) if isinstance(value, memoryview) else str(value))


def test_nothing_planted_comes_out(own_key: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="dspyserve")
    api, secret = API(own_key), own_key.partition(".")[2]
    options = {"metadata": {"password": NESTED, "note": TEXT}, "tags": [f"Bearer {BEARER}"], "session_id": SK}
    answers = []
    for program, words in [
        ("echo", "@@answer=fine@@"),
        ("threaded", "@@answer=fine@@"),
        ("parallel", "@@answer=fine@@"),
        ("echo", "@@error=echo@@"),
        ("threaded", "@@error=echo@@ @@status=401@@"),
        ("echo", "@@garbage=1@@"),
        ("failing", ""),
    ]:
        inputs = {"question": f"{TEXT} {own_key} {words}"}
        answers.append(content(api.post(f"programs/{program}", {"inputs": inputs, **options})).decode())
        answers.append(api.post(f"programs/{program}/batch", {"inputs": [inputs], **options}).content.decode())
    repeated = api.post(
        "programs/echo",
        {"inputs": {"question": f"{TEXT} @@answer=fine@@"}},
        **{"Idempotency-Key": uuid.uuid4().hex},
    )
    answers.append(repeated.content.decode())
    trace = Trace.objects.filter(status="failed", program_name="failing").first()
    assert trace is not None
    assert "[redacted]" in trace.error_message
    opinion = {"name": "good", "comment": TEXT, "label": f"Bearer {BEARER}"}
    answers.append(api.post(f"traces/{trace.id.hex}/feedback", opinion).content.decode())
    assert Shake(api, "private").status_code == 200
    reading = [content(api.get(path)).decode() for path in ("traces", f"traces/{trace.id.hex}", "traces/export")]
    span = trace.spans.first()
    assert span is not None
    reading.append(api.get(f"traces/{trace.id.hex}/spans/{span.span_id}").content.decode())
    exported = b"".join(jsonl(Trace.objects.all(), payloads=True)).decode()
    assert Trace.objects.count() >= 15

    found = {
        "the database": stored(),
        "the log": caplog.text,
        "the answers": "".join(answers),
        "what is read of traces": "".join(reading),
        "the export": exported,
    }
    for place, text in found.items():
        for planted in (PROVIDER_KEY, BEARER, PASSWORD, SK, NESTED, secret):
            assert planted not in text, f"{planted} is in {place}: {text[max(0, text.find(planted) - 300) :][:400]}"
    # The texts around the secrets are there, so that the search looks in the right places.
    for place in ("the database", "what is read of traces", "the export"):
        assert "my key is [redacted]" in found[place]


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"api_key": "x"}, "api_key"),
        ({"extra_headers": {"a": "b"}}, "extra_headers"),
        ({"metadata": {"access_token": NESTED}}, "metadata.access_token"),
        ({"extra_body": {"users": [{"password": PASSWORD}]}}, "extra_body.users.password"),
        ({"user": SK}, "user"),
        ({"note": f"Bearer {BEARER}"}, "note"),
    ],
)
def test_secrets_are_refused_as_parameters(parameters: dict[str, Any], told: str, db: None) -> None:
    with pytest.raises(ValidationError) as caught:
        LanguageModel(name="a", model="openai/x", parameters=parameters).full_clean()
    assert caught.value.message_dict == {"parameters": [f"Not allowed here: {told}."]}


@pytest.mark.parametrize("parameters", [{"max_tokens": 5}, {"stop": ["token"]}, {"logit_bias": {"50256": -100}}])
def test_what_only_looks_like_one_is_not(parameters: dict[str, Any], db: None) -> None:
    LanguageModel(name="a", model="openai/x", parameters=parameters).full_clean()
