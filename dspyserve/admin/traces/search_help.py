"""What the search box understands, for those who ask."""

from __future__ import annotations

from typing import Final

from django.utils.translation import gettext_lazy as _

HELP: Final = [
    ("program:qa version:3", _("the program, and the version of its state")),
    ("status:failed", _("how it ended: succeeded, failed, cancelled, timed_out, running, abandoned")),
    ("has:error has:feedback", _("something went wrong in it; somebody or something judged it")),
    ("is:unreviewed", _("no person and no key has judged it yet")),
    ("feedback:helpful<0.5", _("a judgement of this name, with a score; =bad is a label")),
    ("duration>2s first_token<500ms", _("in ms, s, m or h; also >=, <=, =")),
    ("cost>0.01 tokens>=1k", _("US dollars; input and output tokens together; also spans, errors, calls")),
    ("model:openai/gpt", _("how the model begins; model=openai/gpt-5-mini is just this one")),
    ("env:production transport:sse", _("where it ran, and the door that it came through")),
    ("user:ann key:shop session:abc", _("who called: a user, an API key, a conversation")),
    ("tag:beta meta.tenant=acme", _("what the caller put on it")),
    ("error:ValueError", _("the type of the error")),
    ("time:24h since:2026-01-31", _("7 days unless you say: 90m, 24h, 30d, any; since and until")),
    ("-tag:beta", _("a minus turns a word round")),
    ('refund "free text"', _("text in inputs, outputs, errors and sessions; every word must be there")),
    ("01980c2f6b7d7a2f9c4e…", _("the id of a trace, a batch or a span, found at any time")),
]
"""Examples of the search language, and what they mean."""
