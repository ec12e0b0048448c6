"""Whether this process lives, and whether it can serve."""

from __future__ import annotations

from asgiref.sync import sync_to_async
from django.db import connections
from django.http import HttpRequest, HttpResponse
from ninja import Router

from dspyserve import runs
from dspyserve.api.responses import json_response
from dspyserve.programs.catalogue import catalogue
from dspyserve.tracing import store
from dspyserve.tracing.writer import writer

router = Router()


@router.get("/live")
async def live(request: HttpRequest) -> HttpResponse:
    """Always `{"status": "ok"}`: whoever reads it was answered."""
    return json_response({"status": "ok"})


@router.get("/ready")
async def ready(request: HttpRequest) -> HttpResponse:
    """200 where the database, the programs and the trace writer are in order, else 503; each by name."""
    parts = {
        "database": await sync_to_async(_database_answers)(),
        "programs": await _programs_are_known(),
        "traces": not writer.is_away,
        "accepting": not runs.live.is_draining,
    }
    is_ready = all(parts.values())
    body = {"status": "ok" if is_ready else "unavailable", "checks": parts, "running": len(runs.live)}
    return json_response(body, status=200 if is_ready else 503)


def _database_answers() -> bool:
    try:
        with connections[store.database()].cursor() as cursor:
            cursor.execute("SELECT 1")
    except Exception:  # noqa: BLE001 - whatever is wrong with the database, it is not ready
        return False
    return True


async def _programs_are_known() -> bool:
    try:
        await catalogue.arows()
    except Exception:  # noqa: BLE001 - as above
        return False
    return True
