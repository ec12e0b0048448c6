"""API keys in the admin: the token is shown once, after it was made."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from dspyserve.access.permissions import RUN, grantable_programs, grantable_scopes
from dspyserve.admin import wording
from dspyserve.models import APIKey


class APIKeyForm(forms.ModelForm):  # type: ignore[type-arg]
    """Offers what the person who fills it in may grant."""

    user_of_request: Any = None
    scopes = forms.MultipleChoiceField(
        label=_("Scopes"), choices=APIKey.Scope.choices, widget=forms.CheckboxSelectMultiple, required=False
    )

    class Meta:
        model = APIKey
        exclude = ()  # noqa: DJ006 - the admin's fieldsets choose

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._held = set(self.instance.scopes or ()) if self.instance.pk else set()
        self._held_programs = set(self.instance.programs.all()) if self.instance.pk else set()

    def clean_scopes(self) -> list[str]:
        """Nobody grants what they do not have; what the key has already may stay."""
        chosen = set(self.cleaned_data["scopes"])
        refused = chosen - self._held - set(grantable_scopes(self.user_of_request))
        if refused:
            raise ValidationError(_("You may not grant: %(names)s.") % {"names": ", ".join(sorted(refused))})
        return [scope for scope in APIKey.Scope.values if scope in chosen]

    def clean_all_programs(self) -> bool:
        """All programs are granted by those who may run all."""
        wanted: bool = self.cleaned_data["all_programs"]
        if wanted and not self.instance.all_programs and not self.user_of_request.has_perm(RUN):
            raise ValidationError(_("You may not run all programs yourself."))
        return wanted

    def clean_programs(self) -> Any:
        """Programs are granted by those who may run them."""
        chosen = self.cleaned_data["programs"]
        mine = set(grantable_programs(self.user_of_request))
        if refused := [program.name for program in chosen if program not in mine | self._held_programs]:
            raise ValidationError(_("You may not run: %(names)s.") % {"names": ", ".join(sorted(refused))})
        return chosen

    def clean_user(self) -> Any:
        """A key may run in one's own name; in another's, only those who may manage users say so."""
        owner, person = self.cleaned_data["user"], self.user_of_request
        users = get_user_model()._meta
        may_choose = person.has_perm(f"{users.app_label}.change_{users.model_name}")
        if owner is not None and owner != person and owner.pk != self.instance.user_id and not may_choose:
            raise ValidationError(_("You may not make keys in the name of other users."))
        return owner


@admin.register(APIKey)
class APIKeyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Keys with what they may do, and when they were last used."""

    form = APIKeyForm
    list_display = ("name", "prefix", "may", "reach", "user", "state", "expires_at", "last_used_at")
    list_filter = ("is_active", "all_programs")
    list_select_related = ("user",)
    search_fields = ("name", "prefix")
    raw_id_fields = ("user",)
    filter_horizontal = ("programs",)
    readonly_fields = ("prefix", "created_at", "last_used_at")

    class Media:
        css = {"all": ["dspyserve/admin/base.css", "dspyserve/admin/api_key.css"]}

    def get_fieldsets(self, request: HttpRequest, obj: APIKey | None = None) -> Any:
        """What is only known of a key that is there comes last; who may change nothing reads the scopes in words."""
        scopes = "scopes" if obj is None or self.has_change_permission(request, obj) else "may"
        history = [(_("History"), {"fields": ("prefix", "created_at", "last_used_at")})] if obj else []
        return [
            (None, {"fields": ("name", "user", "is_active", "expires_at")}),
            (_("What it may do"), {"fields": (scopes, "all_programs", "programs", "rate_limit")}),
            *history,
        ]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """A form that knows who fills it in."""
        form = super().get_form(request, obj, change=change, **kwargs)
        return type(form.__name__, (form,), {"user_of_request": request.user})

    def get_queryset(self, request: HttpRequest) -> QuerySet[APIKey]:
        """With the programs that the list names."""
        return super().get_queryset(request).prefetch_related("programs")

    def save_model(self, request: HttpRequest, obj: APIKey, form: Any, change: bool) -> None:
        """Give a new key its token, and show it."""
        token = None if change else obj.issue()
        super().save_model(request, obj, form, change)
        if token is not None:
            text = _("The key, shown only now:")
            notice = format_html('{} <code class="dspyserve-token">{}</code>', text, token)
            self.message_user(request, notice, messages.WARNING)

    @admin.display(description=_("scopes"))
    def may(self, key: APIKey) -> str:
        """The scopes in words."""
        return ", ".join(str(APIKey.Scope(scope).label) for scope in key.scopes if scope in APIKey.Scope) or "–"

    @admin.display(description=_("programs"))
    def reach(self, key: APIKey) -> Any:
        """The programs that it is for."""
        return _("all") if key.all_programs else ", ".join(program.name for program in key.programs.all()) or "–"

    @admin.display(description=_("state"))
    def state(self, key: APIKey) -> str:
        """Whether it works."""
        if not key.is_active:
            return wording.badge("failed", "✕", _("revoked"))
        if key.has_expired:
            return wording.badge("timed_out", "◷", _("expired"))
        return wording.badge("succeeded", "✓", _("valid"))
