"""Which states are stored as versions, and which of them runs."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import dspy
import pytest

from dspyserve import runs
from dspyserve.errors import ConfigurationError, StateMismatch
from dspyserve.models import Program, ProgramVersion
from dspyserve.programs.catalogue import catalogue
from dspyserve.programs.versions import activate_version, add_version

pytestmark = pytest.mark.django_db(transaction=True)

SIGNATURE = "question, context -> answer"


@pytest.fixture
def program() -> Program:
    return Program.objects.create(name="made", signature=SIGNATURE, module="chain_of_thought", access="public")


def state(signature: str = SIGNATURE, instructions: str = "Answer in French.") -> dict[str, Any]:
    """What `dump_state` gives of a chain of thought with these instructions and one demo."""
    source = dspy.ChainOfThought(signature)
    source.predict.signature = source.predict.signature.with_instructions(instructions)
    source.predict.demos = [dspy.Example(question="a", context="b", answer="c", augmented=True)]
    found: dict[str, Any] = source.dump_state()
    return found


class TestAdding:
    def test_what_save_wrote_is_stored_and_runs_when_it_is_activated(self, program: Program, tmp_path: Path) -> None:
        source = dspy.ChainOfThought(SIGNATURE)
        source.load_state(state())
        source.save(str(tmp_path / "state.json"))
        new = add_version(program, json.loads((tmp_path / "state.json").read_text()), note="n", metrics={"f1": 0.5})
        row = new.row
        assert (row.number, new.is_new, row.note, row.metrics) == (1, True, "n", {"f1": 0.5})
        assert (row.dspy_version, len(row.signature_hash)) == (dspy.__version__, 64)
        assert runs.execute("made", {"question": "q", "context": "c"}).version is None
        activate_version(program, row)
        assert runs.execute("made", {"question": "q", "context": "c"}).version == 1
        assert catalogue.get("made").template.predict.signature.instructions == "Answer in French."

    def test_numbers_follow_one_another_and_a_known_state_is_not_stored_again(self, program: Program) -> None:
        numbers = [add_version(program, state(instructions=text)).row.number for text in ("a", "b")]
        again = add_version(program, state(instructions="a"))
        assert (numbers, again.row.number, again.is_new) == ([1, 2], 1, False)
        assert ProgramVersion.objects.count() == 2

    @pytest.mark.parametrize(
        "document",
        [
            None,
            [],
            {},
            {"a": 1},
            {"predict": None},
            {"predict": {"signature": [], "demos": []}},
            {"predict": {**state()["predict"], "demos": "x"}},
            {"predict": {**state()["predict"], "demos": [1]}},
            {"predict": {**state()["predict"], "forward": "x"}},
            {**state(), "other": state()["predict"]},
            state("question -> answer"),
            {"predict": {**state()["predict"], "demos": [{"question": "nul \x00"}]}},
            {"predict": {**state()["predict"], "demos": [{"lone \ud800": "x"}]}},
        ],
    )
    def test_what_does_not_fit_is_refused(self, program: Program, document: Any) -> None:
        with pytest.raises(ConfigurationError) as caught:
            add_version(program, document, force=True)
        assert not isinstance(caught.value, StateMismatch)
        assert not ProgramVersion.objects.exists()

    def test_a_state_that_nests_too_deep_is_refused(self, program: Program) -> None:
        deep: Any = "x"
        for _ in range(5_000):
            deep = [deep]
        document = state()
        document["predict"]["demos"] = [{"question": deep}]
        with pytest.raises(ConfigurationError, match="nests deeper"):
            add_version(program, document)

    @pytest.mark.parametrize("signature", ["context, question -> answer", "query, context -> answer"])
    def test_a_state_of_other_fields_needs_somebody_who_is_sure(self, program: Program, signature: str) -> None:
        with pytest.raises(StateMismatch, match="predict has the fields Question, Context, Reasoning, Answer"):
            add_version(program, state(signature))
        assert add_version(program, state(signature), force=True).is_new

    def test_language_models_are_left_out_and_that_is_said(self, program: Program) -> None:
        document = state()
        document["predict"]["lm"] = {"model": "openai/x", "api_base": "http://evil.example", "api_key": "secret"}
        new = add_version(program, document)
        assert "evil" not in json.dumps(ProgramVersion.objects.get().state)
        assert any("language models" in remark and "predict" in remark for remark in new.remarks)

    def test_that_of_a_program_that_is_one_predictor_too(self) -> None:
        program = Program.objects.create(name="plain", signature="question -> answer")
        source = dspy.Predict("question -> answer")
        document = {**source.dump_state(), "lm": {"model": "openai/x"}}
        new = add_version(program, document)
        assert new.row.state["lm"] is None
        assert new.remarks == ("the language models that the state names are left out: self",)

    def test_another_version_of_dspy_is_remarked(self, program: Program) -> None:
        document = {**state(), "metadata": {"dependency_versions": {"dspy": "2.6.1"}}}
        (remark,) = add_version(program, document).remarks
        assert "DSPy 2.6.1" in remark


class TestActivating:
    def test_rolls_back_and_to_none(self, program: Program) -> None:
        first, second = (add_version(program, state(instructions=text)).row for text in ("a", "b"))
        for version in (second, first, None):
            activate_version(program, version)
            result = runs.execute("made", {"question": "q", "context": "c"})
            assert result.version == (version.number if version else None)

    def test_a_program_whose_fields_changed_needs_somebody_who_is_sure(
        self, program: Program, caplog: pytest.LogCaptureFixture
    ) -> None:
        version = add_version(program, state()).row
        program.signature = "context, question -> answer"
        program.save()
        with pytest.raises(StateMismatch):
            activate_version(program, version)
        program.refresh_from_db()
        assert program.active_version is None
        activate_version(program, version, force=True)
        with caplog.at_level(logging.WARNING):
            catalogue.get("made")
        assert "stored for other fields" in caplog.text

    def test_one_that_does_not_fit_any_more_is_refused_even_then(self, program: Program) -> None:
        version = add_version(program, state()).row
        program.signature = "question -> answer"
        program.save()
        with pytest.raises(ConfigurationError):
            activate_version(program, version, force=True)
