"""Four demo programs: a plain one, one with typed outputs, an agent with tools, and one that starts threads.

They run on the embedded demo engine as well as on any language model.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any, Literal

import dspy
import pydantic
from django.conf import settings
from django.db.models import Count

from dspyserve import ContextThreadPoolExecutor, register
from dspyserve.models import Trace

ACCESS: Literal["public", "authenticated"] = "public" if settings.DEMO_IS_OPEN else "authenticated"

# --- A question and its answer ----------------------------------------------------------------------------------------


class AnswerQuestion(dspy.Signature):
    """Answer the question in a few plain sentences. Say so when you do not know."""

    question: str = dspy.InputField(desc="what somebody wants to know")
    answer: str = dspy.OutputField(desc="a short answer to the question")


@register("qa", title="Questions and answers", description="Thinks, then answers a question.", access=ACCESS)
def question_answering() -> dspy.Module:
    """A chain of thought: its reasoning streams before its answer does."""
    return dspy.ChainOfThought(AnswerQuestion)


# --- Typed outputs ----------------------------------------------------------------------------------------------------


class Contact(pydantic.BaseModel):
    """A person whom a text mentions."""

    name: str = pydantic.Field(description="the person's full name")
    email: str | None = pydantic.Field(default=None, description="the e-mail address, if the text has one")
    company: str | None = pydantic.Field(default=None, description="the employer, if the text names one")


class ExtractContact(dspy.Signature):
    """Read the text and extract who wrote it, in what mood, and what it is about."""

    text: str = dspy.InputField(desc="a message, such as an e-mail to a support team")
    contact: Contact = dspy.OutputField(desc="the person who wrote the text")
    sentiment: Literal["positive", "neutral", "negative"] = dspy.OutputField(desc="the writer's mood")
    topics: list[str] = dspy.OutputField(desc="what the text is about, in one or two words each")


@register(
    "extract",
    title="Extraction",
    description="Turns a message into typed data: its writer, mood and topics.",
    access=ACCESS,
)
def extraction() -> dspy.Module:
    """A single prediction whose outputs are a pydantic model, a choice and a list."""
    return dspy.Predict(ExtractContact)


# --- An agent with tools ----------------------------------------------------------------------------------------------

MAX_LENGTH = 500
"""Characters of the longest expression that `calculate` reads."""

MAX_BASE, MAX_EXPONENT = 1_000_000, 100
"""Above them `calculate` takes no power: `9 ** 9 ** 9` would run for hours."""


def _power(base: float, exponent: float) -> float:
    if abs(base) > MAX_BASE or abs(exponent) > MAX_EXPONENT:
        raise ValueError("too large")
    result: float | complex = base**exponent
    if isinstance(result, complex):
        raise ValueError("not a real number")
    return result


_OPERATORS: dict[type[ast.AST], Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}


def calculate(expression: str) -> str:
    """Work out an arithmetic expression with numbers, parentheses and + - * / // % **, such as "2 * (3 + 4)"."""
    try:
        return str(_value(_parsed(expression.strip())))
    except ZeroDivisionError:
        return "Division by zero."
    except (ArithmeticError, RecursionError, SyntaxError, ValueError):
        return "This is not an arithmetic expression that can be worked out."


def count_traces(program: str = "") -> str:
    """Tell how many executions are stored, of one program or of all, and how many of them succeeded and failed."""
    traces = Trace.objects.filter(program_name=program) if program else Trace.objects.all()
    counts = dict(traces.order_by().values_list("status").annotate(Count("pk")))
    subject = f"the program {program}" if program else "all programs"
    succeeded, failed = counts.get(Trace.Status.SUCCEEDED, 0), counts.get(Trace.Status.FAILED, 0)
    return f"{sum(counts.values())} traces of {subject} are stored: {succeeded} succeeded, {failed} failed."


class UseTools(dspy.Signature):
    """Answer the question with the help of the tools. Never calculate without a tool."""

    question: str = dspy.InputField(desc="a question about numbers or about the executions that this server stored")
    answer: str = dspy.OutputField(desc="the answer, with the numbers that the tools gave")


@register(
    "agent",
    title="Agent",
    description="Answers with two tools: a calculator and a look into the stored traces.",
    access=ACCESS,
)
def agent() -> dspy.Module:
    """A ReAct agent. Its tools are synchronous, so it runs in a thread, where the Django ORM may be used."""
    return dspy.ReAct(UseTools, tools=[calculate, count_traces], max_iters=5)


def _parsed(expression: str) -> ast.expr:
    if len(expression) > MAX_LENGTH:
        raise ValueError("too long")
    return ast.parse(expression, mode="eval").body


def _value(node: ast.AST) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left), _value(right))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(operand))
    raise ValueError("not arithmetic")


# --- Threads ----------------------------------------------------------------------------------------------------------


class DescribePerspective(dspy.Signature):
    """Describe how somebody in the role looks at the topic, in two sentences."""

    topic: str = dspy.InputField(desc="what is looked at")
    role: str = dspy.InputField(desc="who looks at it")
    perspective: str = dspy.OutputField(desc="the topic in the eyes of the role")


class Synthesise(dspy.Signature):
    """Bring the perspectives on the topic together in one balanced paragraph."""

    topic: str = dspy.InputField(desc="what the perspectives are about")
    perspectives: list[str] = dspy.InputField(desc="what different people think of it")
    synthesis: str = dspy.OutputField(desc="one paragraph that does justice to all of them")


@register(
    "perspectives",
    title="Perspectives",
    description="Asks for several perspectives on a topic at the same time and brings them together.",
    access=ACCESS,
    outputs={"perspectives": list[str], "synthesis": str},
)
class Perspectives(dspy.Module):
    """Fans out in two ways that keep the execution's context: `dspy.Parallel` and a pool of its own."""

    ROLES = ("an engineer", "a user", "an accountant")
    CRITICS = ("a sceptic", "an enthusiast")

    def __init__(self) -> None:
        super().__init__()
        self.describe = dspy.Predict(DescribePerspective)
        self.synthesise = dspy.ChainOfThought(Synthesise)

    def forward(self, topic: str) -> dspy.Prediction:
        """The perspectives of all roles on `topic`, and their synthesis."""
        perspectives = [*self._with_parallel(topic), *self._with_pool(topic)]
        synthesis = self.synthesise(topic=topic, perspectives=perspectives).synthesis
        return dspy.Prediction(perspectives=perspectives, synthesis=synthesis)

    def _with_parallel(self, topic: str) -> list[str]:
        # timeout=0, because dspy.Parallel would otherwise ask a slow language model a second time.
        parallel = dspy.Parallel(num_threads=3, disable_progress_bar=True, timeout=0)
        answers: list[Any] = parallel([(self.describe, {"topic": topic, "role": role}) for role in self.ROLES])
        # dspy.Parallel gives None in place of a perspective that failed; the others still make a synthesis.
        return [answer.perspective for answer in answers if answer is not None]

    def _with_pool(self, topic: str) -> list[str]:
        with ContextThreadPoolExecutor(max_workers=len(self.CRITICS)) as pool:
            answers = list(pool.map(lambda role: self.describe(topic=topic, role=role), self.CRITICS))
        return [answer.perspective for answer in answers]
