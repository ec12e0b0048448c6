"""What pages are looked at with: real runs of every kind, and many rows beside them."""

from __future__ import annotations

import datetime
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import dspy
from django.contrib.auth.models import User

from dspyserve import runs
from dspyserve.errors import RequestError
from dspyserve.events import Caller
from dspyserve.models import APIKey, Feedback, LanguageModel, Program, SavedView, Span, Trace
from dspyserve.programs.catalogue import catalogue
from dspyserve.programs.served import template_of
from dspyserve.programs.versions import activate_version, add_version
from dspyserve.tracing.recount import recount, stored_days
from dspyserve.tracing.writer import writer
from tests.browser.bulk import fill
from tests.browser.signing_in import superuser

HOSTILE = (
    "<script>document.title = 'ran'</script><img src=x onerror=\"document.title = 'ran'\"> "
    "javascript:alert(1) \u202egnp.exe \x1b[31mred\x1b[0m [[ ## answer ## ]]"
)
LONG = "\n\n".join(
    f"{number}. The {number}th customer writes that the kettle whistles at {90 + number} °C, "
    "which is louder than the manual says, and asks whether tea may be made all the same."
    for number in range(1, 160)
)
MARKDOWN = "# Steps\n\n- **descale** it\n- boil `1 l`\n\n```python\nprint('tea')\n```\n\n| a | b |\n|---|---|"
CONVERSATION = (
    "Which tea has the most caffeine?",
    "And which one would you drink in the evening?",
    "How long should that one steep?",
)


@dataclass(slots=True)
class Sample:
    """What was made, as far as pages need to know it: ids of traces by what they show, and of other rows."""

    user: User
    traces: dict[str, str] = field(default_factory=dict)
    programs: dict[str, int] = field(default_factory=dict)
    versions: list[int] = field(default_factory=list)
    api_key: int = 0
    language_model: int = 0


def make(bulk: int = 400) -> Sample:
    """Run demo programs and those of the tests on the demo engine, add `bulk` rows, and what people said."""
    sample = Sample(superuser())
    sample.language_model = LanguageModel.objects.get(name="demo").pk
    sample.programs = dict(Program.objects.values_list("name", "pk"))
    sample.api_key = _key(sample.user)
    _versions(sample)
    _runs(sample)
    writer.flush(30)
    _unfinished(sample)
    fill(bulk, sample.user, sample.api_key)
    _opinions(sample)
    _figures()
    SavedView.objects.create(name="Failures of today", query="q=status:failed&window=24h", owner=sample.user)
    return sample


def _key(user: User) -> int:
    key = APIKey(name="shop", user=user, scopes=["run"], all_programs=True)
    key.issue()
    key.save()
    return int(key.pk)


def _versions(sample: Sample) -> None:
    """Two versions of `qa`: other instructions, then demos as well, which are in use."""
    program = Program.objects.get(name="qa")
    demos = [dspy.Example(question="What is tea?", reasoning="Leaves.", answer="A drink.").with_inputs("question")]
    for number, note in enumerate(("First prompt of the team", "Optimised on 40 examples"), 1):
        module = template_of(program)
        for _, predictor in module.named_predictors():
            predictor.signature = predictor.signature.with_instructions(f"Answer like a tea merchant. Take {number}.")
            predictor.demos = demos if number == 2 else []
        metrics = {"accuracy": 0.6 + number / 10}
        added = add_version(program, module.dump_state(), note=note, metrics=metrics, author=sample.user)
        sample.versions.append(added.row.pk)
    activate_version(program, added.row)
    catalogue.forget()


def _runs(sample: Sample) -> None:
    for number, question in enumerate(CONVERSATION):
        _run(sample, f"turn-{number}", "qa", {"question": question}, session_id="tea-talk", tags=("beta", "tea"))
    _run(sample, "success", "qa", {"question": "Why is the sky blue?"}, tags=("beta",), metadata={"tenant": "acme"})
    again = {"question": "Why is the sky red at night?"}
    _run(sample, "replay", "qa", again, replay_of=sample.traces["success"])
    mail = "Hello, I am Ann Lee (ann@example.com) of Acme, and I am sad that my kettle leaks. Please call!"
    _run(sample, "typed", "extract", {"text": mail}, metadata={"tenant": "acme", "plan": {"seats": 3}})
    _run(sample, "agent", "agent", {"question": "What is (2 + 3) * 14, and how many traces are there?"})
    _run(sample, "threads", "perspectives", {"topic": "green tea"}, tags=("tea",))
    _run(sample, "failure", "failing", {"question": "Will this fail?"})
    _run(sample, "timeout", "sleeper", {"seconds": 5}, timeout=0.3)
    _run(sample, "long", "echo", {"question": f"{MARKDOWN}\n\n{LONG}"}, session_id="s" * 90)
    _run(sample, "hostile", "echo", {"question": HOSTILE}, session_id=HOSTILE[:60], tags=(HOSTILE[:40],))
    history = dspy.History(messages=[{"message": "Hi!", "reply": "Hello, what would you like?"}])
    _run(sample, "chat", "chat", {"history": history, "message": "A pot of Assam, please."})


def _run(
    sample: Sample, name: str, program: str, inputs: dict[str, Any], timeout: float | None = None, **values: Any
) -> None:
    caller = Caller(transport="rest", user_id=sample.user.pk, owner=f"user:{sample.user.pk}", **values)
    with suppress(RequestError):
        runs.execute(program, inputs, caller=caller, timeout=timeout)
    writer.flush(30)
    sample.traces[name] = Trace.objects.filter(program_name=program).latest("started_at").pk.hex


def _unfinished(sample: Sample) -> None:
    """A trace whose process died: spans without an end, and one whose parent never arrived."""
    trace = Trace.objects.get(pk=sample.traces["threads"])
    spans = list(trace.spans.all())
    trace.pk = trace.id = type(trace.pk)(int=trace.pk.int ^ 0xFFFF)
    trace.started_at -= datetime.timedelta(minutes=7)
    trace.status, trace.ended_at, trace.duration_ms, trace.output_preview = "abandoned", None, None, ""
    trace.save(force_insert=True)
    for span in spans:
        span.pk, span.trace_id = None, trace.pk
        span.started_at -= datetime.timedelta(minutes=7)
        if span.kind == "run":
            span.status, span.duration_ms = Span.Status.UNFINISHED, None
        if span.sequence == 5:
            span.parent_id = "f" * 16
    Span.objects.bulk_create(spans)
    sample.traces["unfinished"] = trace.pk.hex


def _opinions(sample: Sample) -> None:
    said: dict[str, dict[str, Any]] = {
        "success": {"score": 1.0, "label": "correct", "comment": "Well explained, and short enough."},
        "replay": {"score": 0.0, "label": "wrong", "correction": {"answer": "Because of the long way of the light."}},
        "hostile": {"score": 0.0, "label": HOSTILE[:50], "comment": HOSTILE},
    }
    for name, opinion in said.items():
        author = {"author": f"user:{sample.user.pk}", "user": sample.user}
        Feedback.objects.create(trace_id=sample.traces[name], name="helpful", **author, **opinion)


def _figures() -> None:
    days = stored_days()
    assert days is not None
    day, last = days
    while day <= last:
        recount(day)
        day += datetime.timedelta(days=1)
