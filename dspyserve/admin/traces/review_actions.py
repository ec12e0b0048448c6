"""What the buttons of the review panel do: give feedback, change and withdraw it, and go on to the next trace."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext as _

from dspyserve.access.identity import Identity
from dspyserve.admin.traces import payloads, queue, review
from dspyserve.admin.traces.addresses import address, kept
from dspyserve.admin.traces.review_form import ReviewForm
from dspyserve.errors import InvalidInput, TraceNotFound
from dspyserve.models import Feedback, Span, Trace
from dspyserve.reviewing.feedback import give_feedback, withdraw_feedback

PART: Final = "fetch"
"""What `X-Requested-With` says where a script wants the opinions alone."""


def urls(model_admin: Any) -> list[URLPattern]:
    """The address that the panel's form is sent to."""

    def view(request: HttpRequest, object_id: str) -> HttpResponse:
        return answer(model_admin, request, object_id)

    wrapped = model_admin.admin_site.admin_view(view)
    return [path("<path:object_id>/review/", wrapped, name="dspyserve_trace_review")]


def answer(model_admin: Any, request: HttpRequest, object_id: str) -> HttpResponse:
    """Do what the button says, then show the trace or the next one."""
    if request.method != "POST":
        query = kept(request, span=review.span_of(request))
        return HttpResponseRedirect(address(request, "change", object_id, query=query))
    trace = model_admin.get_object(request, unquote(object_id))
    if not model_admin.has_view_permission(request, trace):
        raise PermissionDenied
    if trace is None:
        return model_admin._get_obj_does_not_exist_redirect(  # type: ignore[no-any-return]
            request, model_admin.opts, object_id
        )
    sent = _Sent(model_admin, request, trace)
    if "delete" in request.POST:
        return sent.withdraw(request.POST["delete"])
    return sent.thumb(request.POST["thumb"]) if "thumb" in request.POST else sent.save()


class _Sent:
    """One form that was sent."""

    def __init__(self, model_admin: Any, request: HttpRequest, trace: Trace) -> None:
        self.model_admin = model_admin
        self.request = request
        self.trace = trace
        self.identity = Identity(user=request.user)
        self.rights = review.Rights.of(request.user)
        self.own = Feedback.objects.filter(trace=trace, author=self.identity.name)

    def withdraw(self, feedback_id: str) -> HttpResponse:
        """Delete an own opinion."""
        _check(self.rights.delete)
        form = self._form()
        try:
            gone = withdraw_feedback(self.identity, self.trace, _number(feedback_id))
        except TraceNotFound:
            messages.warning(self.request, _("This feedback is not there any more."))
        else:
            self._log("deleted", gone)
            messages.success(self.request, _("Your feedback “%s” was deleted.") % gone.name)
        return self._page_with(form)

    def thumb(self, which: str) -> HttpResponse:
        """Turn the own thumb up or down, or take it away; what was typed beside it is neither saved nor lost."""
        earlier = self.own.filter(name=review.THUMBS, span_id="").first()
        if which in review.SCORES:
            _check(self.rights.may_give(earlier))
            self._give_thumb(review.SCORES[which], earlier)
        elif earlier is not None:
            _check(self.rights.delete)
            self._log("deleted", withdraw_feedback(self.identity, self.trace, earlier.pk))
        if self.request.headers.get("X-Requested-With") == PART:
            panel = review.opinions_context(self.request, self.trace)
            return TemplateResponse(self.request, "admin/dspyserve/trace/opinions.html", {"review": panel})
        return self._page_with(self._form())

    def save(self) -> HttpResponse:
        """Store the opinion; with the button `next`, go on to the next trace that nobody has reviewed."""
        form, goes_on = self._form(), "next" in self.request.POST
        if not goes_on or form.has_changed():
            # A thumb may be all that there was to say.
            _check(self.rights.may_give(form.edited))
            if not form.is_valid() or not self._store(form):
                return self._page(form)
            messages.success(self.request, _("Your feedback was saved."))
        return HttpResponseRedirect(queue.next_address(self.request, self.trace)) if goes_on else self._to_page()

    def _give_thumb(self, score: float, earlier: Feedback | None) -> None:
        # What else was said under this name stays.
        kept_parts = {name: getattr(earlier, name, None) or None for name in ("label", "comment", "correction")}
        body = {**kept_parts, "name": review.THUMBS, "score": score}
        feedback, is_new = give_feedback(self.identity, self.trace, body, earlier=earlier)
        self._log("added" if is_new else "changed", feedback, "score")

    def _store(self, form: ReviewForm) -> bool:
        body = form.opinion
        same = self.own.filter(name=body["name"], span_id=body.get("span_id", ""))
        if any(found != form.edited for found in same):
            form.add_error("name", _("You gave feedback under this name before: edit that, or choose another name."))
            return False
        try:
            feedback, is_new = give_feedback(self.identity, self.trace, body, earlier=form.edited)
        except InvalidInput as error:
            form.add_faults(error.faults)
            return False
        except TraceNotFound as error:
            form.add_error("span_id", error.detail)
            return False
        self._log("added" if is_new else "changed", feedback, *form.changed_parts)
        return True

    def _form(self) -> ReviewForm:
        return ReviewForm(
            self.request.POST,
            outputs=_outputs_of(self.trace) if self.rights.read else {},
            schema=review.schema_of(self.trace, self.rights),
            edited=self.own.filter(pk=_number(self.request.POST.get("feedback", ""))).first(),
            span_id=review.span_of(self.request),
        )

    def _page_with(self, form: ReviewForm) -> HttpResponse:
        # What was typed and not saved is shown again; who may not give feedback was not shown the form.
        is_draft = "name" in self.request.POST and form.has_changed()
        return self._page(form) if is_draft else self._to_page()

    def _to_page(self) -> HttpResponse:
        query = kept(self.request, span=review.span_of(self.request))
        return HttpResponseRedirect(f"{address(self.request, 'change', self.trace.pk, query=query)}#review")

    def _page(self, form: ReviewForm) -> HttpResponse:
        panel = review.context(self.model_admin, self.request, self.trace, form.outputs, form)
        return self.model_admin.change_view(  # type: ignore[no-any-return]
            self.request, str(self.trace.pk), extra_context={"review": panel}
        )

    def _log(self, what: str, feedback: Feedback, *fields: str) -> None:
        said: dict[str, Any] = {"name": "feedback", "object": feedback.name}
        if what == "changed":
            said["fields"] = list(fields)
        self.model_admin.log_change(self.request, self.trace, [{what: said}])


def _check(is_allowed: bool) -> None:
    if not is_allowed:
        raise PermissionDenied


def _number(text: str) -> int:
    # No row has the id 0.
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else 0


def _outputs_of(trace: Trace) -> dict[str, Any]:
    # The run itself is the first span of every trace.
    found = payloads.read(*Span.objects.filter(trace=trace, sequence=1))
    outputs = next(iter(found.values()), payloads.Payload()).outputs
    return outputs if isinstance(outputs, dict) else {}
