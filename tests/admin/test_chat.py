"""Messages of LM calls as a chat."""

from __future__ import annotations

from typing import Any

from dspyserve.admin.traces import chat as module
from dspyserve.admin.traces.chat import Chat, Message, Part, chat
from dspyserve.admin.traces.json_tree import Budget
from dspyserve.admin.traces.payloads import Payload

SYSTEM = {"role": "system", "content": "Your input fields are:\n1. `q` (str): x\nyour objective is: \n    Answer."}


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def told(messages: Any, outputs: Any = None) -> Chat:
    found = chat(Payload(messages=messages, outputs=outputs), Budget())
    assert found is not None
    return found


def only(message: Message) -> Part:
    (part,) = message.parts
    return part


def text(part: Part) -> str:
    assert part.node is not None
    assert part.node.text is not None
    return part.node.text.text


def test_what_is_no_chat() -> None:
    assert chat(Payload(inputs={"a": 1}), Budget()) is None


def test_instructions_are_closed_and_say_what_they_ask() -> None:
    (system,) = told([SYSTEM, user("hi")]).opening
    assert (system.is_closed, system.title) == (True, "Answer.")
    assert text(only(system)) == SYSTEM["content"]


def test_demos_are_apart_from_what_is_asked_now() -> None:
    found = told([SYSTEM, user("1"), assistant("2"), user("3"), assistant("4"), user("now")], ["answer"])
    assert [text(only(message)) for message in found.examples] == ["1", "2", "3", "4"]
    assert [text(only(message)) for message in found.messages] == ["now"]
    assert [(answer.role, text(only(answer))) for answer in found.answers] == [("answer", "answer")]


def test_turns_of_an_agent_are_no_demos() -> None:
    turn = assistant(None, tool_calls=[{"name": "look", "args": {}}])
    found = told([SYSTEM, user("1"), turn, user("2")])
    assert (found.examples, len(found.messages)) == ([], 3)


def test_calls_of_tools_in_every_form() -> None:
    openai = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a": [1]}'}}
    spoilt = {"function": {"name": "look", "arguments": "{spoilt"}}
    dspys = {"name": "look", "args": {"a": [1]}}
    found = told([user("q")], [{"text": "t", "tool_calls": [openai, spoilt, dspys, "odd"]}])
    written, first, second, third, fourth = found.answers[0].parts
    assert (written.kind, text(written)) == ("text", "t")
    assert {part.kind for part in (first, second, third, fourth)} == {"call"}
    assert (first.name, third.name, fourth.name) == ("look", "look", "")
    for part in (first, third):
        assert part.node is not None
        assert [child.name for child in part.node.children] == ["a"]
    assert text(second) == "{spoilt"


def test_answers_of_tools_say_which() -> None:
    found = told([user("q"), {"role": "tool", "tool_call_id": "c1", "content": '{"sum": 3}'}])
    message = found.messages[-1]
    assert message.role == "tool"
    assert {part.name: text(part) for part in message.parts} == {"tool_call_id": "c1", "sum": "3"}


def test_media_are_told_and_never_loaded() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "[image/png, 12 KB, sha256 0123456789abcdef]"}},
        {"type": "image_url", "image_url": {"url": "https://evil.example/pixel.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/gif;base64,R0lGODlh"}},
        {"type": "input_audio", "input_audio": {"data": "UklGRiQAAABXQVZF", "format": "wav"}},
        {"type": "file", "file": {"filename": "bill.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
        {"type": "input_audio", "input_audio": {"data": "AAAA… [64 KB of 951 KB]", "format": "mp3"}},
    ]
    media = [part.media for part in told([user(parts)]).messages[0].parts]
    shown = [(m.what, m.kind, m.size.replace("\xa0", " "), m.address) for m in media if m]
    assert shown == [
        ("image", "image/png", "12 KB", ""),
        ("image", "", "", "https://evil.example/pixel.png"),
        ("image", "image/gif", "6 bytes", ""),
        ("audio", "audio/wav", "12 bytes", ""),
        ("file", "application/pdf", "6 bytes", "bill.pdf"),
        ("audio", "audio/mp3", "951 KB", ""),
    ]
    assert [len(m.hash) for m in media if m] == [16, 0, 16, 16, 16, 0]


def test_reasoning_of_the_model_is_named() -> None:
    (answer,) = told([user("q")], [{"text": "a", "reasoning_content": "hm"}]).answers
    assert [(part.kind, text(part)) for part in answer.parts] == [("text", "a"), ("thinking", "hm")]


def test_fields_of_adapters_are_folded() -> None:
    found = told([SYSTEM, user("[[ ## q ## ]]\nwhy\n\nRespond with the corresponding output fields, x")])
    assert [(part.kind, part.name) for part in found.messages[0].parts] == [("field", "q"), ("demand", "")]


def test_long_chats_keep_their_beginning_and_end() -> None:
    found = told([user(str(number)) for number in range(1_000)])
    assert (len(found.messages), found.left_out) == (module.MAX_MESSAGES, 900)
    assert (text(only(found.messages[0])), text(only(found.messages[-1]))) == ("0", "999")


def test_odd_messages_are_shown_all_the_same() -> None:
    odd = [7, None, "text", {"role": ["list"], "content": {"deep": 1}}, {"content": [3, {"type": "strange"}, "x"]}]
    assert len(told(odd).messages) == len(odd)
    assert len(told("one text").messages) == 1
    assert (
        len(told([user("\n".join(f"[[ ## f{n} ## ]]\nx" for n in range(500)))]).messages[0].parts) == module.MAX_PARTS
    )
