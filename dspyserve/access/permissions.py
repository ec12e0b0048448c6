"""Who may run a program, and who may see what went on inside."""

from __future__ import annotations

from typing import Any

from dspyserve.errors import Forbidden, Unauthenticated
from dspyserve.models import Program

RUN = "dspyserve.run_program"
VIEW_PAYLOAD = "dspyserve.view_payload"


async def check_may_run(user: Any, program: Program) -> None:
    """Return where `user`, None for an anonymous caller, may run `program`.

    Raises:
        Unauthenticated: the program is not public and the caller is unknown.
        Forbidden: the program is restricted and the user lacks the permission to run such.
    """
    if program.access == Program.Access.PUBLIC:
        return
    if user is None:
        raise Unauthenticated("This program asks for credentials.")
    if program.access == Program.Access.RESTRICTED and not await user.ahas_perm(RUN):
        raise Forbidden("You may not run this program.")


async def may_see_payloads(user: Any) -> bool:
    """Whether the events of a stream carry the inputs and outputs of inner spans for `user`."""
    return user is not None and bool(await user.ahas_perm(VIEW_PAYLOAD))


async def visible_programs(user: Any, programs: list[Program]) -> list[Program]:
    """Those of `programs` that `user` may run."""
    may_restricted = user is not None and await user.ahas_perm(RUN)
    levels = {Program.Access.PUBLIC.value}
    if user is not None:
        levels.add(Program.Access.AUTHENTICATED.value)
    if may_restricted:
        levels.add(Program.Access.RESTRICTED.value)
    return [program for program in programs if program.access in levels]
