"""What is remembered of DSPy's work is what DSPy would find; a DSPy that has no place for a shortcut fails here."""

from __future__ import annotations

import asyncio
import base64
import inspect
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any, Literal

import dspy
import pydantic
import pytest
from dspy.adapters import utils as adapter_utils
from dspy.clients import capabilities, costs, execution, model_metadata
from dspy.clients.engines.lm15_engine import AsyncLM15Engine, LM15Engine
from dspy.lm15 import Config, FunctionTool, Message, Request, RouterConfig, TextPart
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


def _vendored(name: str) -> Any:
    return import_module(f"dspy._vendor.lm15.transports.{name}")


def _cut(data: bytes, places: list[int]) -> list[bytes]:
    places = sorted({place % (len(data) + 1) for place in places})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


PLACES = st.lists(st.integers(0, 10_000), max_size=12)


class TestStreams:
    @given(
        st.lists(st.binary(min_size=1, max_size=40), max_size=6),
        PLACES,
        st.sampled_from([b"", b"X-Trailer: 1\r\n", b"rest"]),
        st.sampled_from([b"0\r\n", b"0;ext=1\r\n", b"zz\r\n", b"\r\n", b"-1\r\n", b"1_0\r\n", b"5\r\nabcdeXX"]),
        st.sampled_from([b"\r\n", b"\n", b";name=value\r\n"]),
    )
    def test_chunks(self, contents: list[bytes], places: list[int], behind: bytes, end: bytes, line_end: bytes) -> None:
        body = b"".join(b"%x%b%b\r\n" % (len(content), line_end, content) for content in contents)
        kind = _vendored("_http11").ChunkedDecoder

        def read(feed: Any) -> tuple[bytes, bool, bytes, str]:
            decoder, found = kind(), b""
            try:
                for piece in _cut(body + end + behind + b"\r\n", places):
                    for part in feed(decoder, piece):
                        found += part
            except Exception as error:
                return found, decoder.complete, b"", repr(error)
            return found, decoder.complete, decoder.leftover, ""

        assert read(kind.feed) == read(inspect.unwrap(kind.feed))

    @given(st.lists(st.sampled_from([b"data: {}", b"\r", b"\n", b"\n\n", b"", b"\xff", b"a: b\n"])), PLACES)
    def test_lines(self, parts: list[bytes], places: list[int]) -> None:
        chunks = _cut(b"".join(parts), places)
        types = _vendored("_types")

        async def several() -> Any:
            for chunk in chunks:
                yield chunk

        async def lines(split: Any) -> list[bytes]:
            return [line async for line in split(several())]

        kind = types.TransportResponse
        assert list(kind.iter_lines(chunks)) == list(inspect.unwrap(kind.iter_lines).__get__(chunks)())
        kind = types.AsyncTransportResponse
        assert asyncio.run(lines(kind.aiter_lines)) == asyncio.run(lines(inspect.unwrap(kind.aiter_lines)))

    def test_a_stream_that_takes_no_texts_gets_all_chunks(self, provider: OpenAIServer) -> None:
        lm = ServedLM("openai/gpt-4o-mini", api_base=provider.url, api_key="k", cache=False)

        def chunks(bridge: Any) -> list[Any]:
            found: list[Any] = []

            class Stream:
                async def send(self, chunk: Any) -> None:
                    found.append(dict(chunk) | {"id": "", "predict_id": ""})

            async def ask() -> None:
                with dspy.context(send_stream=Stream()), pytest.MonkeyPatch.context() as patch:
                    patch.setattr(execution, "ListenerBridge", bridge)
                    await lm.acall("@@words=20@@")

            asyncio.run(ask())
            return found

        assert len(told := chunks(execution.ListenerBridge)) > 10
        assert told == chunks(execution.ListenerBridge.__mro__[1])


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


class TestTimeouts:
    @staticmethod
    def wait_for() -> tuple[Any, Any]:
        """Ours and DSPy's."""
        ours = _vendored("_async").wait_for
        return ours, inspect.unwrap(ours)

    @pytest.mark.parametrize("waits", [False, True])
    def test_what_need_not_wait_gets_no_task_and_what_reads_a_stream_neither(self, waits: bool) -> None:
        async def tasks(wait_for: Any) -> int:
            made: list[Any] = []
            loop = asyncio.get_running_loop()
            loop.set_task_factory(lambda *given, **named: made.append(given) or asyncio.Task(given[1], loop=loop))
            semaphore, reader = asyncio.Semaphore(1), asyncio.StreamReader()
            if waits:
                loop.call_later(0.01, reader.feed_data, b"data")
                assert await wait_for(reader.read(10), 5) == b"data"
            else:
                assert await wait_for(semaphore.acquire(), 5) is True
            return len(made)

        ours, stock = self.wait_for()
        assert (asyncio.run(tasks(ours)), asyncio.run(tasks(stock))) == (0, 1)

    @pytest.mark.parametrize("what", ["a place", "data"])
    @pytest.mark.parametrize("how", ["comes", "times out", "is cancelled", "is cancelled at once", "fails"])
    def test_what_has_to_wait_ends_alike(self, how: str, what: str) -> None:
        async def end(wait_for: Any) -> tuple[str, int, bool]:
            reader = asyncio.StreamReader()
            semaphore = asyncio.Semaphore(0)
            awaited = semaphore.acquire() if what == "a place" else reader.read(10)
            task = asyncio.ensure_future(wait_for(awaited, 0.05 if how == "times out" else 5))
            await asyncio.sleep(0 if "once" in how else 0.01)
            match how:
                case "comes" | "fails" if what == "a place":
                    semaphore.release()
                case "comes":
                    reader.feed_data(b"data")
                case "fails":
                    reader.set_exception(ValueError("broken"))
                case "is cancelled" | "is cancelled at once":
                    task.cancel()
            done = await asyncio.gather(task, return_exceptions=True)
            # Nothing is left behind: neither a reader that waits nor a place in the queue.
            left = len(semaphore._waiters or ()), reader._waiter is None
            return repr(done[0]), *left

        ours, stock = self.wait_for()
        assert asyncio.run(end(ours)) == asyncio.run(end(stock))

    def test_whoever_is_cancelled_while_data_comes_is_cancelled(self) -> None:
        async def end(wait_for: Any) -> tuple[type, bytes]:
            reader = asyncio.StreamReader()
            task = asyncio.ensure_future(wait_for(reader.read(10), 5))
            await asyncio.sleep(0.01)
            reader.feed_data(b"data")
            task.cancel()
            done = await asyncio.gather(task, return_exceptions=True)
            return type(done[0]), bytes(reader._buffer)

        ours, _ = self.wait_for()
        assert asyncio.run(end(ours)) == (asyncio.CancelledError, b"data")

    def test_others_go_dspys_way(self) -> None:
        async def other() -> Any:
            await asyncio.sleep(0)
            return asyncio.current_task()

        async def is_here(wait_for: Any) -> bool:
            return await wait_for(other(), 5) is asyncio.current_task()

        assert [asyncio.run(is_here(each)) for each in self.wait_for()] == [False, False]
