"""The four demo programs of the example deployment, on the demo engine."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import dspy
import pytest
from django.utils import timezone

from dspyserve.models import Trace
from dspyserve.programs.demo_engine import AsyncDemoEngine, DemoEngine
from dspyserve.programs.registry import registry
from project import dspy_programs
from project.dspy_programs import Contact, calculate, count_traces

ADAPTERS = [
    dspy.ChatAdapter(use_json_adapter_fallback=False),
    dspy.JSONAdapter(),
    dspy.XMLAdapter(use_json_adapter_fallback=False),
]


@pytest.fixture(params=ADAPTERS, ids=lambda adapter: type(adapter).__name__)
def lm(request: pytest.FixtureRequest) -> Iterator[dspy.LM]:
    lm = dspy.LM("demo/echo", engine=DemoEngine(), async_engine=AsyncDemoEngine(), cache=False)
    with dspy.context(lm=lm, adapter=request.param, trace=[]):
        yield lm


@pytest.fixture
def stored_traces(db: None) -> None:
    for program, status in [("qa", "succeeded"), ("qa", "failed"), ("agent", "succeeded"), ("agent", "cancelled")]:
        Trace.objects.create(
            id=uuid.uuid4(), program_name=program, status=status, transport="rest", started_at=timezone.now()
        )


def build(name: str) -> dspy.Module:
    registration = registry.get(name)
    assert registration is not None
    return registration.build()


@pytest.mark.parametrize("name", ["qa", "extract", "agent", "perspectives"])
def test_a_program_is_public_and_described(name: str) -> None:
    registration = registry.get(name)

    assert registration is not None
    assert registration.origin.startswith(dspy_programs.__name__)
    assert registration.defaults["access"] == "public"
    assert registration.defaults["title"]
    assert registration.defaults["description"]


@pytest.mark.usefixtures("lm")
def test_qa_answers_after_it_reasoned() -> None:
    prediction = build("qa")(question="Why is the sky blue?")

    assert list(prediction.keys()) == ["reasoning", "answer"]
    assert prediction.answer.startswith('Demo answer to "Why is the sky blue?"')


@pytest.mark.usefixtures("lm")
def test_extract_gives_typed_values() -> None:
    text = "I am Ada Lovelace from Analytical Engines Ltd. My impression of billing is negative: ada@engines.example."

    prediction = build("extract")(text=text)

    assert prediction.contact == Contact(
        name="Ada Lovelace", email="ada@engines.example", company="Analytical Engines Ltd"
    )
    assert prediction.sentiment == "negative"
    assert "billing" in prediction.topics


@pytest.mark.usefixtures("lm", "stored_traces")
def test_agent_uses_both_tools() -> None:
    prediction = build("agent")(question="What is 6 * 7?")

    assert prediction.trajectory["observation_0"] == "42"
    assert prediction.trajectory["observation_1"].startswith("4 traces of all programs are stored")
    assert 'The tool calculate returned "42".' in prediction.answer


def test_perspectives_asks_in_threads_and_keeps_the_order(lm: dspy.LM) -> None:
    prediction = build("perspectives")(topic="Trains")

    asked = ["an engineer", "a user", "an accountant", "a sceptic", "an enthusiast"]
    assert len(prediction.perspectives) == len(asked)
    assert all(f'role "{role}"' in text for role, text in zip(asked, prediction.perspectives, strict=True))
    assert prediction.synthesis.startswith('Demo synthesis for "Trains"')
    assert len(lm.history) == 6


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("6 * 7", "42"),
        (" 2 * (3 + 4) ** 2 ", "98"),
        ("-7 // 2 + +1", "-3"),
        ("7 % 4 / 2", "1.5"),
        ("2 ** 0.5", "1.4142135623730951"),
        ("1 / 0", "Division by zero."),
    ],
)
def test_calculate_works_out_arithmetic(expression: str, result: str) -> None:
    assert calculate(expression) == result


@pytest.mark.parametrize(
    "expression",
    [
        *["", "six", "1 +", "'a' * 3", "__import__('os')", "abs(-1)", "1 if 1 else 2", "1j * 2", "~1", "(-8) ** 0.5"],
        *["9 ** 9 ** 9", "10.0 ** 100 ** 4", "(9 ** 100) ** 100", "(" * 500 + "1", "-" * 400 + "1j", "1" + "+ 1" * 500],
    ],
)
def test_calculate_refuses_anything_else(expression: str) -> None:
    assert calculate(expression) == "This is not an arithmetic expression that can be worked out."


@pytest.mark.usefixtures("stored_traces")
@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("", "4 traces of all programs are stored: 2 succeeded, 1 failed."),
        ("qa", "2 traces of the program qa are stored: 1 succeeded, 1 failed."),
        ("unknown", "0 traces of the program unknown are stored: 0 succeeded, 0 failed."),
    ],
)
def test_count_traces_tells_how_executions_ended(program: str, told: str) -> None:
    assert count_traces(program) == told
