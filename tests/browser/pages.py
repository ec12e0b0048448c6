"""Every page of the admin that is the app's own, in one place: what looks at all of them takes them from here.

A new page is a new line. In addresses stand for ids: `<trace NAME>`, `<lm NAME>` and `<tool NAME>` for the first such
span of that trace, `<program NAME>`, `<version NUMBER>` of `qa`, `<key>` and `<model>`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID

from dspyserve.models import Span
from tests.browser.sample import Sample

ADMIN = "/admin/dspyserve"


@dataclass(frozen=True, slots=True)
class AdminPage:
    """A page: its name, its address, and a text that it shows. A twin is made as another one is, of other rows."""

    name: str
    path: str
    shows: str
    is_twin: bool = False

    def address(self, sample: Sample) -> str:
        """Where it is for these rows."""
        return re.sub("<([^>]+)>", lambda found: _id(sample, *found[1].split(" ")), self.path)


PAGES = (
    AdminPage("index", "/admin/", "Traces"),
    AdminPage("app", f"{ADMIN}/", "Traces"),
    AdminPage("traces", f"{ADMIN}/trace/", "Why is the sky blue?"),
    AdminPage("traces-failed", f"{ADMIN}/trace/?q=status:failed", "Failed", is_twin=True),
    AdminPage("traces-none", f"{ADMIN}/trace/?q=tag:nothing-has-this-tag", "0 traces"),
    AdminPage("trace", f"{ADMIN}/trace/<trace success>/change/", "Why is the sky blue?"),
    AdminPage("trace-agent", f"{ADMIN}/trace/<trace agent>/change/", "calculate"),
    AdminPage("trace-threads", f"{ADMIN}/trace/<trace threads>/change/", "green tea", is_twin=True),
    AdminPage("trace-typed", f"{ADMIN}/trace/<trace typed>/change/", "contact", is_twin=True),
    AdminPage("trace-failure", f"{ADMIN}/trace/<trace failure>/change/", "ValueError"),
    AdminPage("trace-timeout", f"{ADMIN}/trace/<trace timeout>/change/", "Timed out", is_twin=True),
    AdminPage("trace-unfinished", f"{ADMIN}/trace/<trace unfinished>/change/", "Abandoned"),
    AdminPage("trace-long", f"{ADMIN}/trace/<trace long>/change/", "kettle whistles", is_twin=True),
    AdminPage("trace-hostile", f"{ADMIN}/trace/<trace hostile>/change/", "javascript:alert(1)"),
    AdminPage("trace-replay", f"{ADMIN}/trace/<trace replay>/change/", "red at night", is_twin=True),
    AdminPage("span-lm", f"{ADMIN}/trace/<trace success>/change/?span=<lm success>", "Why is the sky blue?"),
    AdminPage("span-tool", f"{ADMIN}/trace/<trace agent>/change/?span=<tool agent>", "calculate", is_twin=True),
    AdminPage("span-chat", f"{ADMIN}/trace/<trace chat>/change/?span=<lm chat>", "A pot of Assam", is_twin=True),
    AdminPage("span-long", f"{ADMIN}/trace/<trace long>/change/?span=<lm long>", "kettle whistles"),
    AdminPage("span-hostile", f"{ADMIN}/trace/<trace hostile>/change/?span=<lm hostile>", "javascript:alert(1)"),
    AdminPage("session", f"{ADMIN}/trace/session/tea-talk/", "Which tea has the most caffeine?"),
    AdminPage("compare", f"{ADMIN}/trace/compare/?a=<trace success>&b=<trace replay>", "red at night"),
    AdminPage("compare-form", f"{ADMIN}/trace/compare/", "Compare"),
    AdminPage("trace-delete", f"{ADMIN}/trace/<trace success>/delete/", "Are you sure"),
    AdminPage("replay", f"{ADMIN}/trace/<trace success>/replay/", "Why is the sky blue?"),
    AdminPage("dashboard", f"{ADMIN}/trace/dashboard/", "qa"),
    AdminPage("dashboard-month", f"{ADMIN}/trace/dashboard/?window=30d", "qa", is_twin=True),
    AdminPage("programs", f"{ADMIN}/program/", "Questions and answers"),
    AdminPage("program", f"{ADMIN}/program/<program qa>/change/", "Questions and answers"),
    AdminPage("program-add", f"{ADMIN}/program/add/", "Signature", is_twin=True),
    AdminPage("playground", f"{ADMIN}/program/<program extract>/playground/", "Run"),
    AdminPage("version", f"{ADMIN}/program/<program qa>/versions/2/", "Answer like a tea merchant. Take 2."),
    AdminPage("version-add", f"{ADMIN}/program/<program qa>/versions/add/", "dump_state()"),
    AdminPage("versions-compare", f"{ADMIN}/program/<program qa>/versions/compare/?a=1&b=2", "Demos that are new"),
    AdminPage("language-models", f"{ADMIN}/languagemodel/", "demo/echo"),
    AdminPage("language-model", f"{ADMIN}/languagemodel/<model>/change/", "demo/echo"),
    AdminPage("api-keys", f"{ADMIN}/apikey/", "shop"),
    AdminPage("api-key", f"{ADMIN}/apikey/<key>/change/", "Scopes"),
    AdminPage("api-key-add", f"{ADMIN}/apikey/add/", "Scopes", is_twin=True),
)
"""All of them."""


def _id(sample: Sample, what: str, name: str = "") -> str:
    if what == "trace":
        return str(UUID(sample.traces[name]))
    if what in ("lm", "tool"):
        return _span(sample, name, what)
    if what == "program":
        return str(sample.programs[name])
    if what == "version":
        return str(sample.versions[int(name) - 1])
    return str({"key": sample.api_key, "model": sample.language_model}[what])


def _span(sample: Sample, name: str, kind: str) -> str:
    spans = Span.objects.filter(trace_id=sample.traces[name], kind=kind).order_by("sequence")
    return str(spans.values_list("span_id", flat=True)[0])
