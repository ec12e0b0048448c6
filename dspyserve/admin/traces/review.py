"""The panel on the page of a trace where people say what they think of it, and see what others said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from django import forms
from django.db.models import Case, QuerySet, Value, When
from django.http import HttpRequest

from dspyserve.access.identity import Identity
from dspyserve.access.permissions import VIEW_PAYLOAD, Right
from dspyserve.admin.plain_text import visible
from dspyserve.admin.traces import queue
from dspyserve.admin.traces.addresses import address, kept
from dspyserve.admin.traces.field_texts import FieldText, field_texts
from dspyserve.admin.traces.review_form import DEFAULT_NAME, ReviewForm
from dspyserve.errors import ProgramError, ProgramNotFound
from dspyserve.models import Feedback, Trace
from dspyserve.programs.catalogue import catalogue

THUMBS: Final = "thumbs"
"""The name of the feedback that a thumb gives."""
SCORES: Final = {"up": 1.0, "down": 0.0}
MAX_OPINIONS: Final = 200
"""More are not shown, and the panel says so."""
SUGGESTED_NAMES: Final = (DEFAULT_NAME, "correctness", "helpfulness", "safety", "style")

MEDIA: Final = forms.Media(
    css={"all": ["dspyserve/admin/review.css"]},
    js=[forms.Script("dspyserve/admin/review.js", type="module")],  # type: ignore[list-item]
)


@dataclass(frozen=True, slots=True)
class Rights:
    """What a member of the staff may do with feedback; own opinions are always seen.

    `read` is about the texts of the trace, and so about corrections, which repeat them.
    """

    view: bool
    add: bool
    change: bool
    delete: bool
    read: bool

    @classmethod
    def of(cls, user: Any) -> Rights:
        """Those of `user`."""
        view, change, delete = (user.has_perm(f"dspyserve.{verb}_feedback") for verb in ("view", "change", "delete"))
        add = user.has_perm(Right.GIVE_FEEDBACK.permission)
        return cls(view=view, add=add, change=change, delete=delete, read=user.has_perm(VIEW_PAYLOAD))

    def may_give(self, earlier: Feedback | None) -> bool:
        """Whether an opinion may be given, or put in the place of `earlier`."""
        return self.add if earlier is None else self.change


@dataclass(frozen=True, slots=True)
class Opinion:
    """One feedback as the panel shows it."""

    feedback: Feedback
    is_own: bool
    correction: list[FieldText]

    @property
    def thumb(self) -> str:
        """`up`, `down`, or nothing where it is no thumb."""
        is_thumb = self.feedback.name == THUMBS
        return next((name for name, score in SCORES.items() if is_thumb and score == self.feedback.score), "")

    @property
    def author(self) -> str:
        """A person's name or that of an API key; what was noted of the author where both are gone."""
        who = self.feedback.api_key or self.feedback.user
        return visible(str(who) if who is not None else self.feedback.author)

    @property
    def score(self) -> str:
        """As short as it can be written; empty where there is none."""
        return "" if self.feedback.score is None else f"{self.feedback.score:g}"

    @property
    def comment(self) -> str:
        """As it may be shown."""
        return visible(self.feedback.comment)

    @property
    def label(self) -> str:
        """As it may be shown."""
        return visible(self.feedback.label)

    @property
    def name(self) -> str:
        """As it may be shown."""
        return visible(self.feedback.name)


def context(
    model_admin: Any, request: HttpRequest, trace: Trace, outputs: Any, form: ReviewForm | None = None
) -> dict[str, Any]:
    """What the panel shows; `outputs` are those of the run, and `form` what was sent and could not be stored."""
    panel = opinions_context(request, trace)
    rights, shown = panel["rights"], panel["opinions"]
    return {
        **panel,
        "form": form or _form(request, trace, outputs, rights, shown),
        "names": sorted({*SUGGESTED_NAMES, *(opinion.feedback.name for opinion in shown)} - {THUMBS}),
        "may_correct": rights.read,
        "queue": queue.links(model_admin, request, trace),
    }


def opinions_context(request: HttpRequest, trace: Trace) -> dict[str, Any]:
    """The part of it that a thumb changes: the thumbs themselves, and who said what."""
    rights = Rights.of(request.user)
    shown = _opinions(request, trace, rights)
    own = next((o for o in shown if o.is_own and o.feedback.name == THUMBS and not o.feedback.span_id), None)
    filters, query = kept(request), kept(request, span=span_of(request))
    change = address(request, "change", trace.pk)
    return {
        "rights": rights,
        "opinions": shown[:MAX_OPINIONS],
        "has_more": len(shown) > MAX_OPINIONS,
        "thumb": own.thumb if own else "",
        "may_thumb": rights.may_give(own.feedback if own else None),
        "action": address(request, "review", trace.pk, query=query),
        "spans": f"{change}?{filters + '&' if filters else ''}span=",
        "more": f"{change}?{query + '&' if query else ''}feedback=",
    }


def opinions_for(user: Any) -> QuerySet[Feedback]:
    """The feedback that `user` may see: their own, and that of others with the permission to view feedback."""
    return Feedback.objects.all() if Rights.of(user).view else Feedback.objects.filter(author=Identity(user=user).name)


def schema_of(trace: Trace, rights: Rights) -> Mapping[str, Any] | None:
    """The schema of what the trace's outputs should be; None where they may or can not be corrected."""
    if not rights.read:
        return None
    try:
        return catalogue.get(trace.program_name).schema.output_schema
    except (ProgramNotFound, ProgramError):
        return None


def span_of(request: HttpRequest) -> str:
    """The span that is chosen on the page."""
    chosen = request.GET.get("span", "")
    return chosen if len(chosen) <= 16 and chosen.isalnum() else ""


def _opinions(request: HttpRequest, trace: Trace, rights: Rights) -> list[Opinion]:
    me = Identity(user=request.user).name
    feedback = opinions_for(request.user).filter(trace=trace).select_related("user", "api_key")
    # The reader's own come first, so that no limit hides them.
    ordered = feedback.order_by(Case(When(author=me, then=Value(0)), default=Value(1)), "created_at", "pk")
    return [
        Opinion(found, found.author == me, field_texts(found.correction) if rights.read else [])
        for found in ordered[: MAX_OPINIONS + 1]
    ]


def _form(request: HttpRequest, trace: Trace, outputs: Any, rights: Rights, shown: list[Opinion]) -> ReviewForm | None:
    """A new opinion, or the one that `?feedback=` names; the reader's own review where nothing is named."""
    own = [opinion.feedback for opinion in shown if opinion.is_own]
    wanted = request.GET.get("feedback", "")
    reviews = (found for found in own if (found.name, found.span_id) == (DEFAULT_NAME, ""))
    review = next(reviews, None)
    edited = next((found for found in own if str(found.pk) == wanted), None if wanted else review)
    if edited is not None and not rights.change:
        edited = None
    if not rights.may_give(edited):
        return None
    return ReviewForm(
        outputs=outputs if isinstance(outputs, Mapping) else {},
        schema=schema_of(trace, rights),
        edited=edited,
        span_id=span_of(request),
        name="" if review is not None else DEFAULT_NAME,
    )
