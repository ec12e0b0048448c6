"""What is remembered of DSPy's work is what DSPy would find; a DSPy that has no place for a shortcut fails here."""

from __future__ import annotations

import asyncio
import base64
import inspect
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, Literal

import dspy
import pydantic
import pytest
from dspy.adapters import utils as adapter_utils
from dspy.clients import capabilities, costs, execution, model_metadata
from dspy.clients.engines.lm15_engine import AsyncLM15Engine, LM15Engine
from dspy.lm15 import Config, FunctionTool, Message, Request, RouterConfig, TextPart, Usage
from dspy.utils import callback as dspy_callback
from hypothesis import given
from hypothesis import strategies as st

from dspyserve.shortcuts import install, proxies, shortcuts
from dspyserve.shortcuts.prompts import remember_system_messages
from dspyserve.shortcuts.served_lm import ServedLM
from tests.load.openai_server import OpenAIServer


@pytest.fixture(autouse=True)
def _installed() -> None:
    install()


def test_where_there_is_no_place_for_one_dspy_does_its_own_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dspyserve.shortcuts._PARTS", ("nowhere",))
    assert install.__wrapped__() == ("nowhere",)
    assert "nowhere" in caplog.text


def test_this_dspy_has_a_place_for_all() -> None:
    assert install() == ()
    assert len({shortcut.__name__ for shortcut in shortcuts()}) > 8


MODELS = ["openai/gpt-4o-mini", "openai/no-such-model", "anthropic/claude-sonnet-4-5", "gemini/gemini-2.5-flash"]


class TestLookups:
    @pytest.mark.parametrize("model", [name.partition("/")[2] for name in MODELS])
    def test_models(self, model: str) -> None:
        model_metadata._load()
        found = costs.model_info("openai-chat", model)
        assert (
            found
            == inspect.unwrap(costs.model_info)("openai-chat", model)
            == model_metadata.model_info("openai-chat", model)
        )
        assert costs.model_info("openai-chat", model) is found, "remembered"
        assert model_metadata.model_info("openai-chat", model) is not found, "for others a copy of their own"

    @pytest.mark.parametrize("tokens", [1_000, 300_000])
    def test_prices_of_short_and_of_long_requests(self, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
        model_metadata._load()
        usage = Usage(input_tokens=tokens, output_tokens=10)
        response: Any = SimpleNamespace(
            message=SimpleNamespace(parts=[]), model="gemini-2.5-pro", usage=usage, provider_data=None
        )
        found = [costs.estimate_cost(response, provider="gemini", requested_model="") for _ in range(2)]
        monkeypatch.setattr(costs, "re", re)
        stock = costs.estimate_cost(response, provider="gemini", requested_model="")
        assert found == [stock, stock]
        assert stock[0] is not None
        assert stock[0] / tokens == pytest.approx(2.5e-6 if tokens > 200_000 else 1.25e-6, rel=0.2)

    @pytest.mark.parametrize("model", MODELS)
    @pytest.mark.parametrize("client", [{}, {"api_base": "http://127.0.0.1:1/v1", "api_key": "k"}, {"timeout": 3.0}])
    def test_backends_and_capabilities(self, model: str, client: dict[str, Any]) -> None:
        lm = ServedLM(model, cache=False, **client)
        for options in ({}, {"temperature": 0.2}, {"api_base": "http://127.0.0.1:2/v1"}, {"headers": {"x": "y"}}):
            stock = inspect.unwrap(execution.select_backend)(lm, options)
            for _ in range(2):
                assert execution.select_backend(lm, options) == capabilities.select_backend(lm, options) == stock
            if stock.native:
                assert capabilities._capabilities(lm, options) == inspect.unwrap(capabilities._capabilities)(
                    lm, options
                )
        assert capabilities.resolve(lm) == inspect.unwrap(capabilities.resolve)(lm)

    def test_a_gateway_that_the_environment_names_is_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lm = ServedLM("openai/gpt-4o-mini", cache=False, api_key="k")
        assert execution.select_backend(lm, {}).native
        monkeypatch.setenv("OPENAI_API_BASE", "http://127.0.0.1:1/v1")
        assert not execution.select_backend(lm, {}).native

    @pytest.mark.parametrize("client", [{"headers": {"x": "y"}}, {"extra_headers": {"x": ["y"]}}])
    def test_settings_that_cannot_be_looked_up_go_dspys_way(self, client: dict[str, Any]) -> None:
        lm = ServedLM("openai/gpt-4o-mini", cache=False, api_key="k", **client)
        with capabilities.planning_scope(lm, {}):
            asyncio.run(capabilities.prepare_async(lm))
            assert capabilities.capabilities(lm) == inspect.unwrap(capabilities._capabilities)(lm, {})

    def test_plans_of_texts_alone_are_remembered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        planned: list[Any] = []
        engine = LM15Engine(RouterConfig(env={}))
        plan = engine.router.plan
        monkeypatch.setattr(engine.router, "plan", lambda request: planned.append(request) or plan(request))

        def ask(text: str = "hello", **changes: Any) -> None:
            request = Request(
                model="openai/gpt-4o-mini", messages=(Message(role="user", parts=(TextPart(text=text),)),), **changes
            )
            assert engine.plan(request) == plan(request.__class__(**{**vars_of(request), "model": planned_model}))

        planned_model = "openai-chat:gpt-4o-mini"
        ask()
        ask("something else")
        assert len(planned) == 1
        ask(config=Config(temperature=0.3))
        assert len(planned) == 2, "another configuration may be refused"
        tool = FunctionTool(name="search", description="d", parameters={"type": "object", "properties": {}})
        ask(tools=(tool,))
        ask(tools=(tool,))
        assert len(planned) == 4, "a request with tools is planned each time"


def vars_of(request: Request) -> dict[str, Any]:
    return {name: getattr(request, name) for name in request.__dataclass_fields__}


class Answer(pydantic.BaseModel):
    """Something structured."""

    text: str
    score: float = pydantic.Field(description="from 0 to 1")


class Ask(dspy.Signature):
    """Answer, briefly.

    In two paragraphs.
    """

    question: str = dspy.InputField(desc="what is asked")
    history: dspy.History = dspy.InputField()
    answer: Answer = dspy.OutputField()
    mood: Literal["good", "bad"] = dspy.OutputField()


class TestPrompts:
    @given(st.text(st.characters()))
    def test_texts(self, text: str) -> None:
        assert adapter_utils.serialize_for_json(text) == inspect.unwrap(adapter_utils.serialize_for_json)(text)

    @pytest.mark.parametrize("kind", [dspy.ChatAdapter, dspy.JSONAdapter, dspy.XMLAdapter])
    def test_system_messages(self, kind: Any) -> None:
        adapter = remember_system_messages(kind())
        base = dspy.Signature("question -> answer")
        for signature in (base, Ask, base.with_instructions("Another task."), base.append("more", dspy.OutputField())):
            for _ in range(2):
                assert adapter.format_system_message(signature) == kind().format_system_message(signature)
                demos = [{"question": "a", "answer": "b"}]
                inputs = {"question": "q", "history": dspy.History(messages=[])}
                assert adapter.format(signature, demos, inputs) == kind().format(signature, demos, inputs)

    def test_adapters_of_projects_stay_as_they_are(self) -> None:
        class Own(dspy.ChatAdapter):
            pass

        adapter = Own()
        assert "format_system_message" not in vars(remember_system_messages(adapter))


class TestCallbacks:
    def test_handlers(self) -> None:
        class Told:
            def __getattr__(self, name: str) -> str:
                return name

        def named(name: str) -> Any:
            def function() -> None: ...

            function.__name__ = name
            return function

        told: Any = Told()
        kinds = [
            (ServedLM("openai/gpt-4o-mini"), "acall"),
            (dspy.ChatAdapter(), "format"),
            (dspy.ChatAdapter(), "parse"),
            (dspy.Tool(len), "__call__"),
            (dspy.Predict("a -> b"), "__call__"),
            (dspy.Evaluate(devset=[]), "__call__"),
        ]
        for choose in (dspy_callback._get_on_start_handler, dspy_callback._get_on_end_handler):
            for instance, name in kinds * 2:
                assert choose(told, instance, named(name)) == inspect.unwrap(choose)(told, instance, named(name))

    def test_ids_of_calls_need_no_call_of_the_system(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = {dspy_callback.uuid.uuid4().hex for _ in range(1_000)}
        assert len(found) == 1_000
        assert all(uuid.UUID(each).version == 4 and uuid.UUID(each).hex == each for each in found)
        monkeypatch.setattr("os.urandom", None)
        assert len(dspy_callback.uuid.uuid4().hex) == 32

    def test_what_callbacks_are_told(self) -> None:
        for function in (dspy.Module.acall, dspy.BaseLM.__call__, ServedLM.acall, dspy.ChatAdapter.parse):
            bare = function.__wrapped__
            remembered = bare.__signature__
            del bare.__signature__
            try:
                assert inspect.signature(bare) == remembered
            finally:
                bare.__signature__ = remembered


def test_proxies_are_read_again_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    now = [1e9]
    monkeypatch.setattr(proxies.time, "monotonic", lambda: now[0])
    assert "http" not in proxies._proxy.getproxies()
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:3128")
    assert "http" not in proxies._proxy.getproxies()
    now[0] += 1.1
    assert proxies._proxy.getproxies()["http"] == "http://127.0.0.1:3128"
    now[0] += 1.1
    monkeypatch.delenv("http_proxy")
    assert "http" not in proxies._proxy.getproxies()


class TestThreads:
    @pytest.fixture
    def lm(self, provider: OpenAIServer) -> ServedLM:
        return ServedLM("openai/gpt-4o-mini", api_base=provider.url, api_key="k", cache=False)

    @pytest.fixture
    def hops(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        found: list[Any] = []
        submit = ThreadPoolExecutor.submit

        def noted(pool: Any, *args: Any, **kwargs: Any) -> Any:
            found.append(args)
            return submit(pool, *args, **kwargs)

        monkeypatch.setattr(ThreadPoolExecutor, "submit", noted)
        return found

    def test_a_call_with_texts_needs_none(self, lm: ServedLM, hops: list[Any]) -> None:
        async def ask() -> tuple[Any, int]:
            with dspy.context(lm=lm.copy(), adapter=dspy.ChatAdapter()):
                predict = dspy.Predict("question -> answer")
                await predict.acall(question="first")
                hops.clear()
                found = await predict.acall(question="second")
                return found, len(hops)

        prediction, count = asyncio.run(ask())
        assert prediction.answer
        assert count == 0

    def test_it_says_the_same_as_without_them(self, lm: ServedLM) -> None:
        stock = dspy.LM("openai/gpt-4o-mini", api_base=lm.kwargs["api_base"], api_key="k", cache=False)
        entries = []
        for one in (stock, lm, lm):
            one = one.copy()
            with dspy.context(lm=one, adapter=dspy.ChatAdapter()):
                asyncio.run(dspy.Predict("question -> answer").acall(question="what?"))
            [entry] = one.history
            for changing in ("timestamp", "uuid", "response"):
                entry.pop(changing)
            entries.append(entry)
        assert entries[0]["cost"]
        assert entries[0] == entries[1] == entries[2]

    def test_images_are_still_read_in_a_thread(self, lm: ServedLM, hops: list[Any]) -> None:
        pixel = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
        content = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{pixel}"}}]

        async def ask() -> None:
            await lm.acall("warm up")
            hops.clear()
            await lm.acall(messages=[{"role": "user", "content": content}])

        asyncio.run(ask())
        assert any("prepare" in str(args) for args in hops)

    def test_streams_need_none_either(self, lm: ServedLM, hops: list[Any]) -> None:
        async def tell() -> tuple[str, int]:
            engine = AsyncLM15Engine(
                RouterConfig(api_keys={"openai-chat": "k"}, base_urls={"openai-chat": lm.kwargs["api_base"]})
            )
            request = Request(
                model="openai/gpt-4o-mini", messages=(Message(role="user", parts=(TextPart(text="hello"),)),)
            )
            kinds = []
            for _ in range(2):
                hops.clear()
                kinds = [event.type async for event in engine.stream(request)]
            await engine.aclose()
            return kinds[-1], len(hops)

        assert asyncio.run(tell()) == ("end", 0)

    def test_a_copy_is_a_copy_of_dspys(self, lm: ServedLM) -> None:
        stock = super(ServedLM, lm).__copy__()
        assert vars(lm.__copy__()) == vars(stock)
        assert all("__slots__" not in vars(kind) for kind in ServedLM.__mro__[:-1])
        copied = lm.copy(temperature=0.5)
        assert copied.kwargs["temperature"] == 0.5
        assert lm.kwargs["temperature"] is None
        assert copied._engine_store is lm._engine_store


class TestArguments:
    @staticmethod
    def plain(self: Any, prompt: Any = None, *, kind: Any = None) -> None: ...

    @staticmethod
    def named(self: Any, first: Any, second: Any = 2, third: Any = 3, **kwargs: Any) -> None: ...

    @staticmethod
    def several(self: Any, *args: Any, **kwargs: Any) -> None: ...

    @staticmethod
    def strict(self: Any, first: Any, *more: Any, kind: Any, x: Any = 4) -> None: ...

    @staticmethod
    def bare(self: Any, first: Any) -> None: ...

    @given(
        st.sampled_from(["plain", "named", "several", "strict", "bare"]),
        st.lists(st.integers(), max_size=4),
        st.dictionaries(st.sampled_from(["first", "second", "third", "kind", "kwargs", "self", "x", "y"]), st.none()),
    )
    def test_are_named_as_ever(self, name: str, positional: list[int], named: dict[str, None]) -> None:
        function = getattr(self, name)

        def bound(getcallargs: Any) -> Any:
            try:
                return list(getcallargs(function, "instance", *positional, **named).items())
            except TypeError as error:
                return str(error)

        assert bound(dspy_callback.inspect.getcallargs) == bound(inspect.getcallargs)

    def test_functions_of_one_code_and_other_defaults(self) -> None:
        for number in (1, 2):

            def function(self: Any, value: int = number) -> None: ...

            assert dspy_callback.inspect.getcallargs(function, None) == {"self": None, "value": number}
