"""`run_program` runs a program from a shell, for people and for scripts."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from dspyserve.models import Program, Trace
from tests.forked import Forked
from tests.load.openai_server import OpenAIServer

Command = Callable[..., str]

pytestmark = pytest.mark.django_db(transaction=True)


class TestInputs:
    def test_a_text_field_takes_the_value_as_it_is(self, command: Command) -> None:
        command("run_program", "echo", "question=42")
        command("run_program", "echo", "question=a=b")
        assert inputs_of_traces() == [{"question": "42"}, {"question": "a=b"}]

    def test_another_field_takes_json(self, command: Command) -> None:
        command("run_program", "sleeper", "seconds=0", "nap=0.5")
        assert inputs_of_traces() == [{"seconds": 0.0, "nap": 0.5}]

    def test_what_is_no_json_is_a_string(self, command: Command) -> None:
        with pytest.raises(CommandError, match="/inputs/seconds"):
            command("run_program", "sleeper", "seconds=soon")
        Program.objects.create(name="choice", signature="colour: Literal['red', 'blue'] -> answer")
        command("run_program", "choice", "colour=red")
        assert inputs_of_traces() == [{"colour": "red"}]

    def test_a_document_gives_all_and_a_pair_wins_over_it(self, command: Command) -> None:
        command("run_program", "sleeper", "nap=0.2", '--inputs={"seconds": 0, "nap": 0.1}')
        assert inputs_of_traces() == [{"seconds": 0.0, "nap": 0.2}]

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["question"], "'question' is not of the form key=value"),
            (["--inputs={"], "--inputs is not JSON"),
            (["--inputs=[]"], "--inputs must be a JSON object"),
            ([], "Invalid input: /inputs/question: This field is required."),
            (["question=q", "colour=red"], "Invalid input: /inputs/colour: Not a field of this program."),
        ],
    )
    def test_what_is_wrong_is_told_in_one_line(self, command: Command, arguments: list[str], told: str) -> None:
        with pytest.raises(CommandError) as raised:
            command("run_program", "echo", *arguments)
        assert str(raised.value) == told
        assert not Trace.objects.exists()


class TestReadable:
    def test_outputs_stand_under_their_names_and_the_facts_in_the_last_line(self, command: Command) -> None:
        lines = command("run_program", "qa", "question=What is the capital of France?").splitlines()
        assert lines[0] == "reasoning"
        assert "offline demo engine" in lines[lines.index("answer") + 1]
        trace = Trace.objects.get()
        assert lines[-1].startswith(f"trace {trace.pk.hex} · ")
        assert f" ms · {trace.input_tokens} + {trace.output_tokens} tokens · " in lines[-1]

    def test_other_values_are_json(self, command: Command) -> None:
        lines = command("run_program", "extract", "text=I am Ann Lee and I love the new tea.").splitlines()
        assert isinstance(json.loads(lines[lines.index("topics") + 1]), list)

    def test_the_trace_knows_that_it_was_a_command(self, command: Command) -> None:
        command("run_program", "echo", "question=q")
        assert Trace.objects.get().transport == Trace.Transport.COMMAND


class TestJson:
    def test_the_result_is_one_document(self, command: Command) -> None:
        document = json.loads(command("run_program", "echo", "question=q", "--json"))
        assert set(document["outputs"]) == {"answer"}
        assert document["trace_id"] == Trace.objects.get().pk.hex
        assert document["trace_stored"] is True

    @pytest.mark.parametrize("stream", [[], ["--stream"]])
    @pytest.mark.parametrize(
        ("name", "code"), [("nobody", "program_not_found"), ("echo", "invalid_input"), ("failing", "program_error")]
    )
    def test_an_error_is_a_problem_and_exit_code_1(
        self, capsys: pytest.CaptureFixture[str], name: str, code: str, stream: list[str]
    ) -> None:
        arguments = ["question=q"] if name == "failing" else []
        with pytest.raises(SystemExit) as raised:
            call_command("run_program", name, *arguments, "--json", *stream)
        assert raised.value.code == 1
        last = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert last.get("problem", last)["code"] == code


class TestStream:
    def test_the_text_stands_under_a_heading_for_each_field(self, command: Command) -> None:
        printed = command("run_program", "qa", "question=What is the capital of France?", "--stream")
        lines = printed.splitlines()
        headings = [line for line in lines if line.endswith((".reasoning", ".answer"))]
        assert [heading.rpartition(".")[2] for heading in headings] == ["reasoning", "answer"]
        assert "offline demo engine" in lines[lines.index(headings[1]) + 1]
        assert lines[-1].startswith(f"trace {Trace.objects.get().pk.hex} · ")

    def test_outputs_that_do_not_stream_come_at_the_end(self, command: Command) -> None:
        lines = command("run_program", "sleeper", "seconds=0", "--stream").splitlines()
        assert lines[0] == "slept"
        assert lines[1] == "0.0"

    def test_a_text_that_streamed_is_not_printed_twice(self, command: Command) -> None:
        printed = command("run_program", "echo", "question=What is the capital of France?", "--stream")
        assert printed.count("offline demo engine") == 1

    def test_predictors_that_run_at_once_do_not_mix(self, command: Command) -> None:
        lines = command("run_program", "perspectives", "topic=tea", "--stream").splitlines()
        assert sum(line.endswith(".perspective") for line in lines) == 5

    def test_with_json_every_line_is_an_event(self, command: Command) -> None:
        events = [
            json.loads(line)
            for line in command("run_program", "qa", "question=q", "--stream", "--json").split("\n")
            if line
        ]
        assert events[0]["type"] == "run_start"
        assert [event["type"] for event in events if event["type"].startswith("run_")] == ["run_start", "run_end"]
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        streamed = "".join(e["delta"] for e in events if e["type"] == "token" and e["field"] == "answer")
        assert streamed == events[-1]["outputs"]["answer"]


@pytest.mark.parametrize("stream", [[], ["--stream"]])
class TestErrors:
    def test_an_unknown_program(self, command: Command, stream: list[str]) -> None:
        with pytest.raises(CommandError) as raised:
            command("run_program", "nobody", *stream)
        assert str(raised.value) == "No such program: There is no program named 'nobody'."

    def test_a_program_that_fails_names_its_trace_and_no_secret(self, command: Command, stream: list[str]) -> None:
        with pytest.raises(CommandError) as raised:
            command("run_program", "failing", "question=q", *stream)
        assert "The program failed: " in str(raised.value)
        assert Trace.objects.get().pk.hex in str(raised.value)
        assert "provider-secret-text" not in str(raised.value)
        assert raised.value.returncode == 1

    def test_a_timeout(self, command: Command, stream: list[str]) -> None:
        with pytest.raises(CommandError, match="Timed out: The execution's deadline passed"):
            command("run_program", "sleeper", "seconds=30", "--timeout=0.2", *stream)
        assert Trace.objects.get().status == Trace.Status.TIMED_OUT


@pytest.mark.parametrize("program", ["echo", "threaded"])
@pytest.mark.parametrize("form", [[], ["--json"], ["--stream"], ["--stream", "--json"]])
def test_ctrl_c_cancels_and_leaves_the_trace(
    process_environment: dict[str, str],
    language_model: Any,
    provider: OpenAIServer,
    tmp_path: Path,
    program: str,
    form: list[str],
) -> None:
    command = ["run_program", program, "question=@@hang=1@@", *form]
    with (tmp_path / "out").open("w+") as output, (tmp_path / "err").open("w+") as errors:
        process = Forked(
            "django", *command, environment=process_environment, output=output.fileno(), errors=errors.fileno()
        )
        try:
            wait_for_request(provider, process)
            process.send_signal(signal.SIGINT)
            process.wait(30)
        finally:
            process.kill()
        out, err = [Path(file.name).read_text() for file in (output, errors)]
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "cancelled" in (out.splitlines()[-1] if "--json" in form else err)
    assert Trace.objects.get().status == Trace.Status.CANCELLED


def wait_for_request(provider: OpenAIServer, process: Forked) -> None:
    """Wait until the program's first call is at the provider."""
    end = time.monotonic() + 60
    while not provider.in_flight and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    assert provider.in_flight, "the program did not call its language model"


def inputs_of_traces() -> list[Any]:
    """The root spans' inputs, in the order of the traces."""
    return [trace.spans.get(sequence=1).payload.inputs for trace in Trace.objects.order_by("pk")]
