"""`/api/openapi.json`: true to what the server does, for every program and caller, and of use to tools."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dspy
import jsonschema
import pytest
from asgiref.sync import async_to_sync

from dspyserve import register, runs
from dspyserve.access.identity import Identity
from dspyserve.api.openapi import document
from dspyserve.api.openapi.examples import example
from dspyserve.api.openapi.names import Schemas, prefixes
from dspyserve.models import LanguageModel, Program
from dspyserve.programs.catalogue import catalogue
from dspyserve.programs.registry import registry
from dspyserve.programs.synchronise import synchronise
from tests.api.conftest import API, make_key, make_user
from tests.server import Server

ROOT = Path(__file__).resolve().parent.parent.parent
TYPESCRIPT = ROOT / "tests" / "typescript"
DEMO = ("agent", "extract", "perspectives", "qa")


def described(api: API) -> dict[str, Any]:
    document: dict[str, Any] = api.get("openapi.json").json()
    return document


def validator(document: dict[str, Any], schema: str) -> jsonschema.Draft202012Validator:
    """One that knows all components."""
    whole = {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
    return jsonschema.Draft202012Validator(whole)


def references(value: Any) -> Iterator[str]:
    """Every reference in a document."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "$ref":
                yield item
            else:
                yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


class TestDocument:
    def test_has_three_operations_for_every_program_and_none_that_is_general(self, anonymous: API) -> None:
        document = described(anonymous)
        assert document["openapi"] == "3.1.0"
        for name in ("qa", "echo"):
            for path in (f"/api/programs/{name}", f"/api/programs/{name}/stream", f"/api/programs/{name}/batch"):
                assert "post" in document["paths"][path]
        assert not [path for path in document["paths"] if "{name}" in path]
        ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
        assert len(ids) == len(set(ids))

    def test_refers_to_nothing_that_is_not_there(self, anonymous: API) -> None:
        document = described(anonymous)
        for reference in set(references(document)):
            found: Any = document
            for part in reference.removeprefix("#/").split("/"):
                found = found[part]
        assert "$defs" not in json.dumps(document)

    def test_holds_good_schemas_and_examples_that_fit(self, anonymous: API) -> None:
        document = described(anonymous)
        for name, schema in document["components"]["schemas"].items():
            jsonschema.Draft202012Validator.check_schema(schema)
            if name.endswith("Run"):
                operation = next(
                    operations["post"]
                    for operations in document["paths"].values()
                    if name in json.dumps(operations.get("post", {}).get("requestBody", {}))
                )
                sample = operation["requestBody"]["content"]["application/json"]["example"]
                validator(document, name).validate(sample)

    @pytest.mark.parametrize("caller", ["anonymous", "key", "user", "superuser"])
    def test_holds_the_programs_that_the_caller_may_run(self, language_model: Any, caller: str) -> None:
        apis: dict[str, Callable[[], API]] = {
            "anonymous": API,
            "key": lambda: API(make_key("run", programs=["restricted"])),
            "user": lambda: API(user=make_user("u")),
            "superuser": lambda: API(user=make_user("s", "run_program")),
        }
        api = apis[caller]()
        listed = {item["name"] for item in api.get("programs").json()["items"]}
        paths = {path.split("/")[3] for path in described(api)["paths"] if path.startswith("/api/programs/")}
        assert paths == listed
        assert ("restricted" in paths) is (caller in ("key", "superuser"))

    def test_tells_a_bad_key(self, language_model: Any) -> None:
        assert API("dsk_nonsense").get("openapi.json").status_code == 401

    def test_follows_the_registry_without_a_restart(self, anonymous: API) -> None:
        assert "/api/programs/late" not in described(anonymous)["paths"]

        @register("late", access="public")
        def late() -> dspy.Module:
            return dspy.Predict("colour: str, count: int -> name")

        try:
            synchronise()
            document = described(anonymous)
            assert document["components"]["schemas"]["LateInputs"]["required"] == ["colour", "count"]
        finally:
            registry._registrations.pop("late")
            Program.objects.filter(name="late").delete()
        assert "/api/programs/late" not in described(anonymous)["paths"]

    def test_leaves_out_what_cannot_be_served_and_keeps_the_rest(self, anonymous: API) -> None:
        Program.objects.create(name="broken", signature="a -> -> b", access="public")
        paths = described(anonymous)["paths"]
        assert "/api/programs/broken" not in paths
        assert "/api/programs/qa" in paths

    def test_says_who_may_call(self, language_model: Any) -> None:
        document = described(API(make_key("run")))
        security = {
            name: document["paths"][f"/api/programs/{name}"]["post"]["security"] for name in ("echo", "private")
        }
        assert security["private"] == [{"bearer": []}, {"session": []}]
        assert security["echo"] == [{}, *security["private"]]

    def test_is_shown_by_the_docs(self, anonymous: API) -> None:
        page = anonymous.get("docs").content.decode()
        assert "/api/openapi.json" in page


class TestAnswers:
    """What the server says, against what the description says of it."""

    @pytest.mark.parametrize("program", ["echo", "threaded", "parallel", "failing", "extract", "agent", "perspectives"])
    def test_events_of_a_stream_are_those_of_the_union(self, language_model: Any, program: str) -> None:
        LanguageModel.objects.update(model="demo/echo", api_base="", api_key_env="", parameters={})
        catalogue.forget()
        api = API(make_key("run"))
        document = described(api)
        names = {"extract": {"text": "Hello"}, "perspectives": {"topic": "tea"}}
        inputs = names.get(program, {"question": "2 + 3"})
        union = validator(document, f"{program.title()}Event")

        async def read() -> list[Any]:
            return [event async for event in await runs.astream(program, inputs)]

        events = async_to_sync(read)()
        for event in events:
            for payloads in (False, True):
                union.validate(json.loads(json.dumps(event.as_dict(payloads=payloads), default=str)))
        mapping = document["components"]["schemas"][f"{program.title()}Event"]["discriminator"]["mapping"]
        assert {event.type for event in events} <= mapping.keys()

    def test_of_every_kind_fit(self, language_model: Any) -> None:
        api = API(make_key("run", "view_traces", "view_payloads", "give_feedback"))
        document = described(api)
        ran = api.run("threaded", question="q")
        trace_id = ran["X-Trace-Id"]
        trace = api.get(f"traces/{trace_id}").json()
        answers = {
            "ThreadedResult": ran.json(),
            "ThreadedBatchResults": api.post("programs/threaded/batch", {"inputs": [{"question": "q"}, {}]}).json(),
            "Problem": api.run("threaded").json(),
            "Feedback": api.post(f"traces/{trace_id}/feedback", {"name": "good", "correction": {}}).json(),
            "TraceDetail": trace,
            "TracePage": api.get("traces").json(),
            "SpanDetail": api.get(f"traces/{trace_id}/spans/{trace['spans'][0]['span_id']}").json(),
        }
        for schema, answer in answers.items():
            validator(document, schema).validate(answer)


class TestNames:
    def test_are_told_apart(self) -> None:
        assert prefixes(["sort-mail", "qa"]) == {"sort-mail": "SortMail", "qa": "Qa"}
        assert prefixes(["a-b", "a_b"]) == {"a-b": "a-b.", "a_b": "a_b."}
        schemas = Schemas({"Problem": {}})
        inner = {"$defs": {"X": {"type": "string"}}, "$ref": "#/$defs/X"}
        assert [schemas.add("A", inner), schemas.add("A", inner)] == ["A", "A2"]
        assert schemas.by_name["A2"] == {"$ref": "#/components/schemas/A2X"}

    def test_of_two_programs_that_differ_in_a_dash_do_not_clash(self, anonymous: API) -> None:
        for name in ("sort-mail", "sort_mail"):
            Program.objects.create(name=name, signature=f"{name.replace('-', '')} -> answer", access="public")
        schemas = described(anonymous)["components"]["schemas"]
        assert schemas["sort-mail.Inputs"]["required"] == ["sortmail"]
        assert schemas["sort_mail.Inputs"]["required"] == ["sort_mail"]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string", "format": "date"}]},
        {"type": "object", "properties": {"a": {"enum": ["x"]}, "b": {}}, "required": ["a"]},
        {"anyOf": [{"type": "number"}, {"type": "null"}]},
        {"$ref": "#/$defs/Node"},
        {"type": "boolean"},
        {"const": 7},
        {"type": "array", "items": {"$ref": "#/$defs/Node"}},
    ],
)
def test_an_example_fits_its_schema(schema: dict[str, Any]) -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}, "name": {"type": "string"}}}
    defs = {"Node": {**node, "required": ["name"]}}
    jsonschema.validate(example(schema, defs), {**schema, "$defs": defs})


@pytest.fixture
def demo_server(transactional_db: None, start_server: Callable[..., Server]) -> Server:
    """The demo programs alone, on the demo language model."""
    Program.objects.exclude(name__in=DEMO).update(is_enabled=False)
    return start_server()


@pytest.mark.slow
def test_schemathesis_finds_nothing(demo_server: Server, tmp_path: Path) -> None:
    """Every check but one, in every phase. More examples: DSPYSERVE_TESTS_EXAMPLES.

    The only DELETE stops an execution, whose stream is then read to its end: nothing is gone after it.
    """
    token = make_key("run", "view_traces", "view_payloads", "give_feedback", "export")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{demo_server.url}/api/openapi.json"),
            *(
                "--checks",
                "all",
                "--exclude-checks",
                "use_after_free",
                "--header",
                f"Authorization: Bearer {token}",
                "--no-color",
            ),
            *("--max-examples", os.environ.get("DSPYSERVE_TESTS_EXAMPLES", "10")),
        ],
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.api.schemathesis_hooks", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout[-20_000:])
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-2_000:]
    # Now and then it warns that it guessed no trace that there is; that is no finding.
    counts = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert counts is not None, done.stdout[-4_000:]
    assert counts[1] == counts[2]


@pytest.mark.slow
@pytest.mark.embedded
@pytest.mark.skipif(
    shutil.which("npm") is None and os.environ.get("CI") != "true", reason="npm is not installed, and this is not CI"
)
def test_typescript_compiles_against_the_description(transactional_db: None, tmp_path: Path) -> None:
    Program.objects.exclude(name__in=DEMO).update(is_enabled=False)
    catalogue.forget()
    for name in ("package.json", "tsconfig.json", "client.ts"):
        shutil.copy(TYPESCRIPT / name, tmp_path)
    (tmp_path / "openapi.json").write_text(json.dumps(async_to_sync(document)(Identity(), "/api/")))
    for command in (
        ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"],
        ["npx", "openapi-typescript", "openapi.json", "--output", "api.d.ts"],
        ["npx", "tsc", "--project", "tsconfig.json"],
    ):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
