"""What a caller may: run a program, see traces and what is in them, give feedback, export."""

from __future__ import annotations

from enum import Enum
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import Q, QuerySet

from dspyserve.access.identity import Identity, KnownKey
from dspyserve.errors import Forbidden, Unauthenticated
from dspyserve.models import APIKey, Program, Trace

RUN = "dspyserve.run_program"
VIEW_PAYLOAD = "dspyserve.view_payload"
REPLAY = "dspyserve.replay_trace"


class Right(Enum):
    """A right over traces: the scope that gives it to an API key, and the permission that gives it to a user."""

    VIEW_TRACES = (APIKey.Scope.VIEW_TRACES, "dspyserve.view_trace")
    VIEW_PAYLOADS = (APIKey.Scope.VIEW_PAYLOADS, VIEW_PAYLOAD)
    GIVE_FEEDBACK = (APIKey.Scope.GIVE_FEEDBACK, "dspyserve.add_feedback")
    EXPORT = (APIKey.Scope.EXPORT, "dspyserve.export_trace")

    def __init__(self, scope: APIKey.Scope, permission: str) -> None:
        self.scope = scope.value
        self.permission = permission


async def check_may_run(identity: Identity, program: Program) -> None:
    """Return where the caller may run `program`.

    Raises:
        Unauthenticated: the program is not public and the caller is unknown.
        Forbidden: the key is not for it, or the program is restricted and not granted to the user.
    """
    if program.access == Program.Access.PUBLIC:
        return
    if identity.is_anonymous:
        raise Unauthenticated("This program asks for credentials.")
    if not await visible_programs(identity, [program]):
        raise Forbidden("You may not run this program.")


async def visible_programs(identity: Identity, programs: list[Program]) -> list[Program]:
    """Those of `programs` that the caller may run."""
    if identity.key is not None:
        return [row for row in programs if row.access == Program.Access.PUBLIC or _key_may_run(identity.key, row)]
    if identity.user is None:
        return [row for row in programs if row.access == Program.Access.PUBLIC]
    restricted = [row.pk for row in programs if row.access == Program.Access.RESTRICTED]
    if restricted and not await identity.user.ahas_perm(RUN):
        granted = {pk async for pk in _grants(identity.user, restricted).values_list("pk", flat=True)}
        return [row for row in programs if row.access != Program.Access.RESTRICTED or row.pk in granted]
    return programs


async def may(identity: Identity, right: Right) -> bool:
    """Whether the caller has `right`."""
    if identity.key is not None:
        return right.scope in identity.key.scopes
    return identity.user is not None and bool(await identity.user.ahas_perm(right.permission))


async def check_may(identity: Identity, right: Right) -> None:
    """Return where the caller has `right`.

    Raises:
        Unauthenticated: the caller is unknown.
        Forbidden: the caller lacks it.
    """
    if identity.is_anonymous:
        raise Unauthenticated("Traces ask for credentials.")
    if not await may(identity, right):
        raise Forbidden(f"This needs the scope {right.scope} or the permission {right.permission}.")


async def check_may_replay(identity: Identity, trace_id: str) -> None:
    """Return where the caller may run variants of programs and, where there is a `trace_id`, run that trace again.

    Raises:
        Forbidden: the caller is no signed-in user with the permission, or may not see traces.
    """
    if identity.key is not None or identity.user is None or not await identity.user.ahas_perm(REPLAY):
        raise Forbidden(f"Other language models, other versions and replays need a user with the permission {REPLAY}.")
    if trace_id:
        await check_may(identity, Right.VIEW_TRACES)


def visible_traces(identity: Identity) -> QuerySet[Trace]:
    """The traces that the caller may see, as far as they are of programs that it reaches."""
    if identity.key is not None and identity.key.programs is not None:
        return Trace.objects.filter(program_id__in=identity.key.programs)
    return Trace.objects.all()


def grantable_scopes(user: Any) -> list[str]:
    """The scopes that `user` may put on a key: nobody grants what they do not have."""
    rights = {right.scope: right.permission for right in Right}
    return [scope for scope in APIKey.Scope.values if scope not in rights or user.has_perm(rights[scope])]


def grantable_programs(user: Any) -> QuerySet[Program]:
    """The programs that `user` may put on a key."""
    if user.has_perm(RUN):
        return Program.objects.all()
    open_ones = ~Q(access=Program.Access.RESTRICTED)
    return Program.objects.filter(open_ones | Q(pk__in=_grants(user, None).values("pk")))


def _key_may_run(key: KnownKey, program: Program) -> bool:
    return APIKey.Scope.RUN in key.scopes and key.reaches(program.pk)


def _grants(user: Any, programs: list[int] | None) -> QuerySet[Program]:
    found = Program.objects.filter(Q(users=user.pk) | Q(groups__in=_groups(user)))
    return (found if programs is None else found.filter(pk__in=programs)).distinct()


def _groups(user: Any) -> Any:
    # A project's own user model need not have groups.
    has_groups = any(field.name == "groups" for field in get_user_model()._meta.get_fields())
    return user.groups.values("pk") if has_groups else []
