"""The form that says the same as the search box, for those who would rather choose than write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from django import forms
from django.db.models import Value
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from dspyserve.admin.plain_text import visible
from dspyserve.admin.traces.list_filter import EQUAL, RANGES, SEARCH, TRUTHS, said_of
from dspyserve.models import LanguageModel, Program, Trace
from dspyserve.tracing.query_language import terms_of
from dspyserve.tracing.query_terms import Term
from dspyserve.tracing.search import OPERATORS, TraceFilter

ANY: Final = [("", _("any"))]
WINDOWS: Final = [
    ("1h", _("Last hour")),
    ("24h", _("Last 24 hours")),
    ("7d", _("Last 7 days")),
    ("30d", _("Last 30 days")),
    ("any", _("Any time")),
]
_TRUTH: Final = [*ANY, ("true", _("yes")), ("false", _("no"))]
_MOMENT: Final = {"type": "datetime-local", "step": "1"}


GROUPS: Final = [
    (_("Run"), "program version status transport model environment has_errors error_type"),
    (_("Caller"), "user api_key session tag meta_name meta_value"),
    (_("Feedback"), "has_feedback reviewed feedback_name feedback_operator feedback_value"),
    (_("Numbers"), "duration_min duration_max tokens_min tokens_max cost_min cost_max"),
    (_("Time and text"), "window since until text"),
]


def _text(label: Any, placeholder: str = "") -> forms.CharField:
    return forms.CharField(label=label, required=False, widget=forms.TextInput(attrs={"placeholder": placeholder}))


def _choice(label: Any, choices: Iterable[tuple[str, Any]] = ()) -> forms.ChoiceField:
    return forms.ChoiceField(label=label, required=False, choices=list(choices))


def _moment(label: Any) -> forms.CharField:
    return forms.CharField(label=label, required=False, widget=forms.TextInput(attrs=_MOMENT))


class FilterForm(forms.Form):
    """Shown, never validated: what it sends is read by `filter_of`, as every address of the list is."""

    program = _choice(_("Program"))
    version = _text(_("Version"), "3")
    status = _choice(_("Status"), [*ANY, *Trace.Status.choices])
    transport = _choice(_("Transport"), [*ANY, *Trace.Transport.choices])
    model = _choice(_("Model"))
    environment = _text(_("Environment"), "production")
    has_errors = _choice(_("With errors"), _TRUTH)
    error_type = _text(_("Error type"), "ValueError")
    has_feedback = _choice(_("With feedback"), _TRUTH)
    reviewed = _choice(_("Reviewed"), _TRUTH)
    feedback_name = _text(_("Feedback"), "helpful")
    feedback_operator = _choice(_("Comparison"), [(sign, sign) for sign in ("=", *OPERATORS) if sign])
    feedback_value = _text(_("Score or label"), "0.5")
    tag = _text(_("Tag"))
    session = _text(_("Session"))
    user = _text(_("User"), str(_("name or id")))
    api_key = _text(_("API key"), str(_("name or prefix")))
    meta_name = _text(_("Metadata"), "tenant")
    meta_value = _text(_("Value"), "acme")
    duration_min = _text(_("Duration from"), "500ms")
    duration_max = _text(_("Duration to"), "2s")
    tokens_min = _text(_("Tokens from"), "100")
    tokens_max = _text(_("Tokens to"), "10k")
    cost_min = _text(_("Cost from"), "$0.01")
    cost_max = _text(_("Cost to"), "$1")
    window = _choice(_("Time"), [("", _("Last 7 days")), *[pair for pair in WINDOWS if pair[0] != "7d"]])
    since = _moment(_("From"))
    until = _moment(_("To"))
    text = _text(_("Text"))

    def __init__(self, values: Mapping[str, str], programs: Iterable[str], models: Iterable[str]) -> None:
        super().__init__(initial=dict(values), auto_id="filter-%s", label_suffix="", use_required_attribute=False)
        names = {"program": sorted(programs), "model": sorted(models)}
        for name, given in names.items():
            self.fields[name].choices = [*ANY, *[(value, visible(value)) for value in given]]  # type: ignore[attr-defined]
        for name in ("program", "model", "window", "status", "transport"):
            self._keep(name, values.get(name, ""))

    def groups(self) -> list[tuple[Any, list[forms.BoundField]]]:
        """The fields as they stand together."""
        return [(title, [self[name] for name in names.split()]) for title, names in GROUPS]

    def _keep(self, name: str, value: str) -> None:
        choices = self.fields[name].choices  # type: ignore[attr-defined]
        if value and value not in dict(choices):
            # What was asked for stays, whether it is to be chosen or not.
            self.fields[name].choices = [*choices, (value, visible(value))]  # type: ignore[attr-defined]


def choices() -> tuple[list[str], list[str]]:
    """The names of all programs, and all models: one query over two short tables."""
    programs = Program.objects.order_by().values_list("name", Value("program"))
    models = LanguageModel.objects.order_by().values_list("model", Value("model"))
    found = list(programs.union(models))
    return [name for name, kind in found if kind == "program"], [name for name, kind in found if kind == "model"]


def values_of(wanted: TraceFilter) -> dict[str, str]:
    """What the form's fields show of `wanted`; what they cannot say stands under `q`, as a search."""
    values: dict[str, str] = {}
    rest: list[Term] = []
    for term in terms_of(said_of(wanted)):
        said = _said(term)
        if said and not said.keys() & values.keys():
            values |= said
        else:
            rest.append(term)
    if rest:
        values[SEARCH] = " ".join(map(str, rest))
    for name in ("since", "until"):
        moment = getattr(wanted, name)
        if moment is not None:
            values[name] = timezone.localtime(moment).strftime("%Y-%m-%dT%H:%M:%S")
    return values


_FIELDS: Final = {key: name for name, key in EQUAL.items() if name != "batch"}
_LIMITS: Final = {limit: name for name, limit in RANGES.items() if name in FilterForm.base_fields}
_SIGNS: Final = {term: {name: sign} for name, terms in TRUTHS.items() for sign, term in terms.items()}


def _said(term: Term) -> dict[str, str]:
    if term in _SIGNS:
        return _SIGNS[term]
    if term.is_negated:
        return {}
    if not term.key:
        return {"text": term.value}
    if term.key == "meta":
        return {"meta_name": term.name, "meta_value": term.value}
    if term.key == "feedback":
        return {"feedback_name": term.name, "feedback_operator": term.operator, "feedback_value": term.value}
    if term.key in _FIELDS:
        is_prefix = term.key == "model" and term.operator == ":"
        return {} if is_prefix else {_FIELDS[term.key]: term.value}
    limit = _LIMITS.get((term.key, term.operator))
    return {limit: term.value} if limit is not None else {}
