"""DSPy's own types through the door: from JSON to the program, to the language model and back."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from dspyserve.models import SpanPayload
from tests.api.conftest import API
from tests.load.openai_server import OpenAIServer
from tests.programs.test_dspy_types import PIXEL, SOUND

CALL = {"name": "search", "args": {"query": "x"}}


@pytest.mark.parametrize(
    ("field", "given", "answered"),
    [
        ("image", PIXEL, {"url": PIXEL}),
        ("image", {"url": "https://example.com/cat.png"}, {"url": "https://example.com/cat.png"}),
        ("audio", f"data:audio/wav;base64,{SOUND}", {"data": SOUND, "audio_format": "wav"}),
        ("file", {"file_id": "f1"}, {"file_data": None, "file_id": "f1", "filename": None}),
        ("document", "A text.", {"data": "A text.", "title": None, "media_type": "text/plain", "context": None}),
        ("history", {"messages": [{"question": "q"}]}, {"messages": [{"question": "q"}]}),
        ("code", "x = 1", "x = 1"),
        ("reasoning", {"content": "Because."}, "Because."),
        ("calls", [CALL], {"tool_calls": [{"id": None, **CALL}]}),
    ],
)
def test_cross_both_ways(anonymous: API, field: str, given: Any, answered: Any) -> None:
    response = anonymous.post("programs/media", {"inputs": {field: given}})
    assert response.status_code == 200, response.content
    outputs = response.json()["outputs"]
    assert outputs[field] == answered
    schema = anonymous.get("programs/media").json()["output_schema"]
    jsonschema.validate(outputs, schema)


@pytest.mark.parametrize(("field", "given"), [("image", "/etc/passwd"), ("file", "/etc/passwd"), ("audio", "/a.wav")])
def test_paths_of_the_server_are_refused(anonymous: API, field: str, given: str) -> None:
    response = anonymous.post("programs/media", {"inputs": {field: given}})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_input")
    assert response.json()["errors"][0]["pointer"].startswith(f"/inputs/{field}")


@pytest.mark.parametrize("address", [PIXEL, "https://example.com/cat.png"])
def test_images_are_handed_to_the_provider(anonymous: API, provider: OpenAIServer, address: str) -> None:
    response = anonymous.post("programs/caption", {"inputs": {"image": {"url": address}}})
    assert response.status_code == 200, response.content
    assert isinstance(response.json()["outputs"]["code"], str)
    parts = [part for message in provider.requests[0].messages for part in parts_of(message)]
    assert [part["image_url"]["url"] for part in parts if part.get("type") == "image_url"] == [address]
    stored = json.dumps(list(SpanPayload.objects.values("inputs", "outputs", "messages")))
    assert "CUSTOM-TYPE" not in stored
    assert SpanPayload.objects.get(span__kind="run").inputs == {"image": {"url": address}}


def parts_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    return content if isinstance(content, list) else []
