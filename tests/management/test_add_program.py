"""`add_program` makes programs from signatures, and changes the options of all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.core.management.base import CommandError

from dspyserve import runs
from dspyserve.models import LanguageModel, Program

Command = Callable[..., str]

ALL = [
    "add_program",
    "made",
    "--signature=question -> answer, confidence: float",
    "--instructions=Answer in rhyme.",
    "--module=chain_of_thought",
    "--title=Made",
    "--description=By a command.",
    "--language-model=other",
    "--adapter=json",
    "--execution=thread",
    "--max-concurrency=3",
    "--max-queue=4",
    "--timeout=5.5",
    "--trace-level=metadata",
    "--access=public",
    "--disable",
]


@pytest.fixture
def other(transactional_db: None) -> LanguageModel:
    return LanguageModel.objects.create(name="other", model="demo/other")


def test_every_option_reaches_its_column(command: Command, other: LanguageModel) -> None:
    assert command(*ALL) == "program made: created\n"
    row = Program.objects.get(name="made")
    assert row.source == Program.Source.SIGNATURE
    assert row.signature == "question -> answer, confidence: float"
    assert row.instructions == "Answer in rhyme."
    assert row.module == "chain_of_thought"
    assert (row.title, row.description) == ("Made", "By a command.")
    assert row.language_model == other
    assert (row.adapter, row.execution) == ("json", "thread")
    assert (row.max_concurrency, row.max_queue, row.timeout) == (3, 4, 5.5)
    assert (row.trace_level, row.access) == ("metadata", "public")
    assert row.is_enabled is False


def test_the_second_time_changes_nothing(command: Command, other: LanguageModel) -> None:
    command(*ALL)
    before = Program.objects.get(name="made").updated_at
    assert command(*ALL) == "program made: unchanged\n"
    assert Program.objects.get(name="made").updated_at == before


def test_only_what_is_given_changes(command: Command, other: LanguageModel) -> None:
    command(*ALL)
    assert command("add_program", "made", "--enable", "--language-model=") == "program made: updated\n"
    row = Program.objects.get(name="made")
    assert row.is_enabled
    assert row.language_model is None
    assert (row.signature, row.timeout) == ("question -> answer, confidence: float", 5.5)


def test_what_was_made_can_be_run(command: Command) -> None:
    command("add_program", "made", "--signature=question -> answer")
    assert runs.execute("made", {"question": "What is 1 + 1?"}).outputs["answer"]


def test_access_is_not_public_unless_it_is_said(command: Command) -> None:
    command("add_program", "made", "--signature=question -> answer")
    assert Program.objects.get(name="made").access == Program.Access.AUTHENTICATED


def test_a_changed_signature_is_the_one_that_runs(command: Command) -> None:
    command("add_program", "made", "--signature=question -> answer")
    assert command("add_program", "made", "--signature=question -> reply") == "program made: updated\n"
    assert list(runs.execute("made", {"question": "q"}).outputs) == ["reply"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["made"], "--signature is needed"),
        (["made", "--signature= "], "--signature is needed"),
        (["made", "--signature=no arrow"], "the signature 'no arrow' cannot be read"),
        (["made", "--signature=question -> answer: NoSuchType"], "cannot be read"),
        (["made", "--signature=config -> answer"], "input fields may not be named config"),
        (["a b", "--signature=question -> answer"], "name: "),
        (["made", "--signature=question -> answer", "--language-model=nobody"], "there are: demo"),
        (["made", "--signature=question -> answer", "--max-concurrency=0"], "max_concurrency: "),
        (["made", "--signature=question -> answer", "--max-queue=-1"], "max_queue: "),
        (["made", "--signature=question -> answer", "--timeout=0"], "timeout: "),
        (["made", "--signature=question -> answer", "--module=react"], "argument --module: invalid choice"),
        (["made", "--signature=question -> answer", "--access=all"], "argument --access: invalid choice"),
        (["made", "--signature=question -> answer", "--adapter=yaml"], "argument --adapter: invalid choice"),
        (["made", "--signature=question -> answer", "--execution=gpu"], "argument --execution: invalid choice"),
        (["made", "--signature=question -> answer", "--trace-level=some"], "argument --trace-level: invalid choice"),
        (["made", "--signature=question -> answer", "--enable", "--disable"], "not allowed with argument"),
        (["qa", "--signature=question -> answer"], "qa is registered in code"),
        (["qa", "--instructions=Be brief."], "qa is registered in code"),
        (["qa", "--module=predict"], "qa is registered in code"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(command: Command, arguments: list[str], told: str) -> None:
    with pytest.raises(CommandError) as raised:
        command("add_program", *arguments)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not Program.objects.filter(name="made").exists()


def test_a_refused_change_leaves_the_row_as_it_was(command: Command) -> None:
    command("add_program", "made", "--signature=question -> answer")
    with pytest.raises(CommandError):
        command("add_program", "made", "--signature=no arrow", "--title=New")
    row = Program.objects.get(name="made")
    assert (row.signature, row.title) == ("question -> answer", "")


def test_options_of_a_program_in_code_can_be_changed(command: Command) -> None:
    assert command("add_program", "qa", "--access=restricted", "--timeout=9") == "program qa: updated\n"
    row = Program.objects.get(name="qa")
    assert (row.source, row.access, row.timeout) == (Program.Source.CODE, "restricted", 9.0)


def test_a_program_in_code_without_a_row_asks_for_sync_programs(command: Command) -> None:
    Program.objects.filter(name="qa").delete()
    with pytest.raises(CommandError, match="run sync_programs first"):
        command("add_program", "qa", "--access=public")
