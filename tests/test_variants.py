"""One run on another language model or version than the program's own, and replays of traces."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from dspyserve import register, runs
from dspyserve.errors import InvalidInput, Overloaded, ProgramError, TraceNotFound
from dspyserve.events import Caller
from dspyserve.models import LanguageModel, Program, ProgramVersion, Trace
from dspyserve.programs import catalogue as catalogues
from dspyserve.programs.catalogue import catalogue
from dspyserve.programs.registry import registry
from dspyserve.programs.synchronise import synchronise
from dspyserve.programs.variant import Variant
from tests.dspy_programs import release
from tests.execution.test_isolation import Meddler
from tests.load.openai_server import OpenAIServer

pytestmark = pytest.mark.usefixtures("language_model")


@pytest.fixture
def other(language_model: LanguageModel, provider: OpenAIServer) -> LanguageModel:
    """A second language model, of another name and temperature."""
    return LanguageModel.objects.create(
        name="other",
        model="openai/gpt-4.1-mini",
        api_base=provider.url,
        api_key_env="TEST_B_API_KEY",
        parameters={"temperature": 0.5},
    )


@pytest.fixture
def program(language_model: LanguageModel) -> Program:
    """Made from a signature, with the versions 1 (active) and 2."""
    row = Program.objects.create(name="made", signature="question -> answer", access="public")
    versions = [
        ProgramVersion.objects.create(program=row, number=number, state=state_with(f"Instructions {number}."))
        for number in (1, 2)
    ]
    row.active_version = versions[0]
    row.save()
    return row


def state_with(instructions: str) -> dict[str, Any]:
    """The state of a program of the signature `question -> answer`."""
    source = dspy.Predict("question -> answer")
    source.signature = source.signature.with_instructions(instructions)
    state: dict[str, Any] = source.dump_state()
    return state


class TestVariants:
    def test_another_language_model_is_called_with_its_own_key(
        self, program: Program, other: LanguageModel, provider: OpenAIServer
    ) -> None:
        result = runs.execute("made", {"question": "q"}, variant=Variant(language_model="other"))
        trace = Trace.objects.get(pk=result.trace_id)
        assert (trace.model, trace.version_number) == ("openai/gpt-4.1-mini", 1)
        assert runs.execute("made", {"question": "q"}).outputs.keys() == result.outputs.keys()
        assert [request.api_key for request in provider.requests] == ["key-b", "key-a"]
        own = Trace.objects.exclude(pk=result.trace_id).get()
        assert own.model == "openai/gpt-4o-mini"

    @pytest.mark.parametrize(
        ("version", "number", "instructions"), [(None, 1, "Instructions 1."), (2, 2, "Instructions 2."), (0, None, "")]
    )
    async def test_another_version_or_none(
        self, program: Program, version: int | None, number: int | None, instructions: str
    ) -> None:
        variant = Variant(version=version)
        assert instructions in (await catalogue.aget("made", variant)).template.signature.instructions
        result = await runs.aexecute("made", {"question": "q"}, variant=variant)
        trace = await Trace.objects.aget(pk=result.trace_id)
        assert result.version == trace.version_number == number

    async def test_a_stream_tells_what_really_runs(self, program: Program, other: LanguageModel) -> None:
        variant = Variant(language_model="other", version=2)
        events = [event async for event in await runs.astream("made", {"question": "q"}, variant=variant)]
        assert (events[0].data["model"], events[0].data["version"]) == ("openai/gpt-4.1-mini", 2)

    @pytest.mark.parametrize(
        ("variant", "pointer"),
        [(Variant(language_model="nobody"), "/options/language_model"), (Variant(version=9), "/options/version")],
    )
    def test_what_is_unknown_is_told(self, program: Program, variant: Variant, pointer: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            runs.execute("made", {"question": "q"}, variant=variant)
        assert [fault.pointer for fault in caught.value.faults] == [pointer]

    def test_a_version_of_another_program_is_unknown(self, program: Program) -> None:
        stranger = Program.objects.create(name="stranger", signature="question -> answer")
        ProgramVersion.objects.create(program=stranger, number=7, state=state_with("x"))
        with pytest.raises(InvalidInput):
            runs.execute("made", {"question": "q"}, variant=Variant(version=7))

    def test_a_version_that_does_not_fit_tells_nothing(self, program: Program) -> None:
        ProgramVersion.objects.create(program=program, number=3, state={"callbacks": []})
        with pytest.raises(ProgramError) as caught:
            runs.execute("made", {"question": "q"}, variant=Variant(version=3))
        assert caught.value.detail == "The program is not configured correctly."

    def test_runs_where_the_programs_own_language_model_is_missing(
        self, program: Program, other: LanguageModel
    ) -> None:
        LanguageModel.objects.filter(is_default=True).delete()
        assert "answer" in runs.execute("made", {"question": "q"}, variant=Variant(language_model="other")).outputs
        with pytest.raises(ProgramError):
            runs.execute("made", {"question": "q"}, variant=Variant(version=2))

    @pytest.mark.parametrize("name", ["blocking"])
    async def test_they_share_the_capacity_of_the_program(self, name: str, other: LanguageModel) -> None:
        variants = [Variant(), Variant(language_model="other"), Variant(version=0)]
        tasks = [
            asyncio.create_task(runs.aexecute(name, {"question": str(variant)}, variant=variant))
            for variant in variants
        ]
        try:
            await asyncio.sleep(1)
            assert not any(task.done() for task in tasks)
            with pytest.raises(Overloaded):
                await runs.aexecute(name, {"question": "one too many"}, variant=variants[1])
        finally:
            release.set()
        await asyncio.gather(*tasks)


class TestBuilding:
    def test_a_variant_is_built_once_while_nothing_changes(self, program: Program, other: LanguageModel) -> None:
        variant = Variant(language_model="other", version=2)
        first = catalogue.get("made", variant)
        catalogue.refresh()
        with CaptureQueriesContext(connection) as queries:
            assert catalogue.get("made", variant) is first
        assert len(queries) == 1
        assert catalogue.get("made") is not first

    def test_changes_in_the_admin_are_seen(self, program: Program, other: LanguageModel) -> None:
        variant = Variant(language_model="other", version=2)
        assert catalogue.get("made", variant).lm.kwargs["temperature"] == 0.5
        other.parameters = {"temperature": 0.6}
        other.save()
        assert catalogue.get("made", variant).lm.kwargs["temperature"] == 0.6
        program.signature = "question -> reply"
        program.save()
        assert "reply" in catalogue.get("made", Variant(version=0)).schema.output_schema["properties"]
        # Past the signals, as another process's change is.
        ProgramVersion.objects.filter(program=program, number=2)._raw_delete("default")  # type: ignore[attr-defined]
        with pytest.raises(InvalidInput):
            catalogue.get("made", variant)

    def test_only_so_many_are_kept(self, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(catalogues, "MAX_VARIANTS", 2)
        variants = [Variant(version=number) for number in (0, 1, 2)]
        kept = [catalogue.get("made", variant) for variant in variants[:2]]
        assert catalogue.get("made", variants[0]) is kept[0]
        catalogue.get("made", variants[2])
        assert catalogue.get("made", variants[0]) is kept[0]
        assert catalogue.get("made", variants[1]) is not kept[1]


class TestIsolation:
    @pytest.fixture
    def meddler(self) -> Iterator[str]:
        name = "meddling-variant"
        register(name, access="public", outputs={"found": list[float], "answer": str})(Meddler)
        synchronise()
        yield name
        registry.remove(name)

    def test_a_variant_that_changes_its_language_model_changes_a_copy(self, meddler: str, other: LanguageModel) -> None:
        for variant, temperature in ((Variant(language_model="other"), 0.5), (Variant(), 0.1)) * 2:
            assert runs.execute(meddler, {"question": "q"}, variant=variant).outputs["found"] == [temperature, 0, 0, 0]

    def test_every_run_has_a_copy_of_the_program(self, other: LanguageModel) -> None:
        variant = Variant(language_model="other")
        for question in ("a", "b"):
            assert runs.execute("stateful", {"question": question}, variant=variant).outputs["seen"] == [question]
        assert catalogue.get("stateful", variant).template is not catalogue.get("stateful").template


class TestReplays:
    def test_the_trace_says_what_it_is_a_replay_of(self) -> None:
        first = runs.execute("echo", {"question": "q"}).trace_id
        for name, inputs in (("echo", {"question": "q"}), ("echo", {"question": "other"})):
            again = runs.execute(name, inputs, caller=Caller(replay_of=first))
            assert Trace.objects.get(pk=again.trace_id).replay_of_id == uuid.UUID(first)
        assert Trace.objects.get(pk=first).replays.count() == 2

    @pytest.mark.parametrize("trace_id", ["0" * 32, "no id", "'; --"])
    @pytest.mark.parametrize("program", ["echo", "threaded"])
    def test_of_nothing_is_refused(self, program: str, trace_id: str) -> None:
        with pytest.raises(TraceNotFound):
            runs.execute(program, {"question": "q"}, caller=Caller(replay_of=trace_id))
        assert not Trace.objects.exists()

    async def test_of_another_program_is_refused(self) -> None:
        other = await runs.aexecute("threaded", {"question": "q"})
        with pytest.raises(InvalidInput) as caught:
            await runs.astream("echo", {"question": "q"}, caller=Caller(replay_of=other.trace_id))
        assert caught.value.faults[0].pointer == "/options/replay_of"
