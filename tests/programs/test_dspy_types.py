"""DSPy's own types across JSON: what clients may send, what is refused, what they get, and what the schemas say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import jsonschema
import pydantic
import pytest
from dspy.experimental import Document

from dspyserve.errors import InvalidInput
from dspyserve.programs.schema import ProgramSchema, program_schema
from dspyserve.programs.values import to_json

PIXEL = "data:image/png;base64,iVBORw0KGgo="
SOUND = "UklGRiQAAABXQVZF"
ToolCall = dspy.ToolCalls.ToolCall
PythonCode: Any = dspy.Code["python"]


class Album(pydantic.BaseModel):
    title: str
    cover: dspy.Image
    pages: list[dspy.Image] = []


class Media(dspy.Signature):
    """Every type of DSPy's own, as input and as output."""

    image: dspy.Image | None = dspy.InputField()
    images: list[dspy.Image] | None = dspy.InputField()
    audio: dspy.Audio | None = dspy.InputField()
    file: dspy.File | None = dspy.InputField()
    files: dict[str, list[dspy.File]] | None = dspy.InputField()
    document: Document | None = dspy.InputField()
    history: dspy.History | None = dspy.InputField()
    code: PythonCode | None = dspy.InputField()
    reasoning: dspy.Reasoning | None = dspy.InputField()
    calls: dspy.ToolCalls | None = dspy.InputField()
    album: Album | None = dspy.InputField()
    out_image: dspy.Image = dspy.OutputField()
    out_images: list[dspy.Image] = dspy.OutputField()
    out_audio: dspy.Audio = dspy.OutputField()
    out_file: dspy.File = dspy.OutputField()
    out_document: Document = dspy.OutputField()
    out_history: dspy.History = dspy.OutputField()
    out_code: dspy.Code = dspy.OutputField()
    out_reasoning: dspy.Reasoning = dspy.OutputField()
    out_calls: dspy.ToolCalls = dspy.OutputField()
    out_album: Album = dspy.OutputField()


@pytest.fixture(scope="module")
def schema() -> ProgramSchema:
    return program_schema(dspy.Predict(Media))


TAKEN: list[tuple[str, Any, Any]] = [
    ("image", "https://example.com/cat.png", dspy.Image("https://example.com/cat.png")),
    ("image", {"url": "https://example.com/cat.png"}, dspy.Image("https://example.com/cat.png")),
    ("image", PIXEL, dspy.Image(PIXEL)),
    ("image", {"url": PIXEL}, dspy.Image(PIXEL)),
    ("images", [PIXEL, {"url": PIXEL}], [dspy.Image(PIXEL), dspy.Image(PIXEL)]),
    ("audio", {"data": SOUND, "audio_format": "wav"}, dspy.Audio(data=SOUND, audio_format="wav")),
    ("audio", f"data:audio/wav;base64,{SOUND}", dspy.Audio(data=SOUND, audio_format="wav")),
    ("file", {"file_id": "file-1"}, dspy.File(file_id="file-1")),
    ("file", {"file_data": PIXEL, "filename": "a.png"}, dspy.File(file_data=PIXEL, filename="a.png")),
    ("file", PIXEL, dspy.File(file_data=PIXEL)),
    ("files", {"a": [PIXEL, {"file_id": "b"}]}, {"a": [dspy.File(file_data=PIXEL), dspy.File(file_id="b")]}),
    ("document", "A text.", Document(data="A text.")),
    ("document", {"data": "A text.", "title": "T"}, Document(data="A text.", title="T")),
    (
        "history",
        {"messages": [{"question": "q", "answer": 1}]},
        dspy.History(messages=[{"question": "q", "answer": 1}]),
    ),
    ("code", "print(1)", PythonCode(code="print(1)")),
    ("code", {"code": "print(1)"}, PythonCode(code="print(1)")),
    ("reasoning", "Because.", dspy.Reasoning(content="Because.")),
    ("reasoning", {"content": "Because."}, dspy.Reasoning(content="Because.")),
    (
        "calls",
        {"tool_calls": [{"name": "search", "args": {"query": "x"}}]},
        dspy.ToolCalls(tool_calls=[ToolCall(name="search", args={"query": "x"})]),
    ),
    (
        "calls",
        [{"name": "search", "args": {"query": "x"}}],
        dspy.ToolCalls(tool_calls=[ToolCall(name="search", args={"query": "x"})]),
    ),
    ("album", {"title": "t", "cover": {"url": PIXEL}}, Album(title="t", cover=dspy.Image(PIXEL))),
]

REFUSED: list[tuple[str, Any]] = [
    ("image", "/etc/passwd"),
    ("image", "images/cat.png"),
    ("image", {"url": "/etc/passwd"}),
    ("image", {"url": "file:///etc/passwd"}),
    ("image", "file:///etc/passwd"),
    ("image", {"url": PIXEL, "download": True}),
    ("image", {"url": PIXEL, "verify": False}),
    ("image", {}),
    ("image", 7),
    ("images", [PIXEL, "/etc/passwd"]),
    ("audio", "/etc/passwd"),
    ("audio", "https://example.com/a.wav"),
    ("audio", {"data": "/etc/passwd.wav", "audio_format": "wav"}),
    ("audio", {"data": SOUND}),
    ("file", "/etc/passwd"),
    ("file", {"file_data": "/etc/passwd"}),
    ("file", {"file_path": "/etc/passwd"}),
    ("file", {}),
    ("files", {"a": [PIXEL, {"file_data": "/etc/passwd"}]}),
    ("document", {"title": "T"}),
    ("document", {"data": "t", "media_type": "text/html"}),
    ("history", {"messages": "none"}),
    ("history", []),
    ("code", 1),
    ("calls", [{"name": "search"}]),
    ("album", {"title": "t", "cover": {"url": "/etc/passwd"}}),
]


@pytest.fixture
def no_io(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither the disk nor the network."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError(f"input or output: {args}")

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", refuse)
        patch.setattr(Path, "open", refuse)
        patch.setattr(Path, "read_bytes", refuse)
        patch.setattr("socket.socket.connect", refuse)
        yield


class TestInputs:
    @pytest.mark.parametrize(("field", "given", "expected"), TAKEN)
    @pytest.mark.usefixtures("no_io")
    def test_are_taken_without_disk_and_network(
        self, schema: ProgramSchema, field: str, given: Any, expected: Any
    ) -> None:
        value = schema.validate({field: given}, from_json=True)[field]
        assert type(value).__name__ == type(expected).__name__
        assert to_json(value) == to_json(expected)

    @pytest.mark.parametrize(("field", "given"), REFUSED)
    @pytest.mark.usefixtures("no_io")
    def test_are_refused_with_a_pointer(self, schema: ProgramSchema, field: str, given: Any) -> None:
        with pytest.raises(InvalidInput) as caught:
            schema.validate({field: given}, from_json=True)
        assert all(fault.pointer.startswith("/inputs") for fault in caught.value.faults)

    @pytest.mark.parametrize(("field", "given"), [(field, given) for field, given, _ in TAKEN])
    def test_that_are_taken_fit_the_published_schema(self, schema: ProgramSchema, field: str, given: Any) -> None:
        jsonschema.validate({field: given}, schema.input_schema)

    def test_may_be_python_values(self, schema: ProgramSchema) -> None:
        values = schema.validate({"image": dspy.Image(PIXEL), "code": "x = 1"}, from_json=False)
        assert values["image"] == dspy.Image(PIXEL)
        assert values["code"].code == "x = 1"

    def test_of_a_path_are_refused_from_python_too(self, schema: ProgramSchema) -> None:
        with pytest.raises(InvalidInput, match="data URI"):
            schema.validate({"file": {"file_data": "/etc/passwd"}}, from_json=False)


GIVEN: list[tuple[str, Any, Any]] = [
    ("out_image", dspy.Image(PIXEL), {"url": PIXEL}),
    ("out_images", [dspy.Image("https://example.com/cat.png")], [{"url": "https://example.com/cat.png"}]),
    ("out_audio", dspy.Audio(data=SOUND, audio_format="wav"), {"data": SOUND, "audio_format": "wav"}),
    (
        "out_file",
        dspy.File(file_data=PIXEL, filename="a.png"),
        {"file_data": PIXEL, "file_id": None, "filename": "a.png"},
    ),
    (
        "out_document",
        Document(data="A text."),
        {"data": "A text.", "title": None, "media_type": "text/plain", "context": None},
    ),
    ("out_history", dspy.History(messages=[{"question": "q"}]), {"messages": [{"question": "q"}]}),
    ("out_code", dspy.Code(code="print(1)"), "print(1)"),
    ("out_reasoning", dspy.Reasoning(content="Because."), "Because."),
    (
        "out_calls",
        dspy.ToolCalls(tool_calls=[ToolCall(name="search", args={"query": "x"})]),
        {"tool_calls": [{"id": None, "name": "search", "args": {"query": "x"}}]},
    ),
    (
        "out_album",
        Album(title="t", cover=dspy.Image(PIXEL)),
        {"title": "t", "cover": {"url": PIXEL}, "pages": []},
    ),
]


class TestOutputs:
    @pytest.mark.parametrize(("field", "value", "expected"), GIVEN)
    def test_come_out_as_plain_json(self, schema: ProgramSchema, field: str, value: Any, expected: Any) -> None:
        assert to_json(value) == expected

    def test_fit_the_published_schema(self, schema: ProgramSchema) -> None:
        jsonschema.validate({field: to_json(value) for field, value, _ in GIVEN}, schema.output_schema)

    @pytest.mark.parametrize(("field", "value", "expected"), GIVEN)
    def test_may_be_corrected_by_what_they_came_out_as(
        self, schema: ProgramSchema, field: str, value: Any, expected: Any
    ) -> None:
        schema.check_outputs(json.loads(json.dumps({field: expected})), "/correction")


class TestCorrections:
    @pytest.mark.parametrize(
        ("given", "pointer"),
        [
            ({"out_code": 1}, "/correction/out_code"),
            ({"out_album": {"title": 1, "cover": {"url": PIXEL}}}, "/correction/out_album/title"),
            ({"other": "x"}, "/correction/other"),
            ({"out_code": None}, "/correction/out_code"),
            ("x", "/correction"),
        ],
    )
    def test_that_do_not_fit_are_refused(self, schema: ProgramSchema, given: Any, pointer: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            schema.check_outputs(given, "/correction")
        assert any(fault.pointer.startswith(pointer) for fault in caught.value.faults)
