"""Which engine a language model is called with, what it can do and what it costs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache, wraps
from typing import Any

from dspy.clients import backend_selection, capabilities, costs, execution, model_metadata
from dspy.clients.backend_selection import CLIENT_KEYS, BackendSelection
from dspy.clients.engines.lm15_engine import _Routing
from dspy.lm15 import Config, Request, TextPart

from dspyserve.shortcuts.memory import MANY, recall, remembered
from dspyserve.shortcuts.module_view import ModuleView


def remember_models() -> None:
    """Look a model up once in the list of all: the whole list is searched for one that is not in it."""
    find = model_metadata.model_info

    @lru_cache(MANY)
    def known(data: int, provider: str, model: str, namespaces: tuple[str, ...] | None) -> Any:
        return find(provider, model, namespaces=namespaces)

    @wraps(find)
    def model_info(provider: str, model: str, *, namespaces: tuple[str, ...] | None = None) -> Any:
        if model_metadata._data is None:
            return find(provider, model, namespaces=namespaces)
        return known(id(model_metadata._data), provider, model, namespaces)

    # Both only read it; whoever else asks gets a copy of its own as before.
    capabilities.model_info = costs.model_info = model_info


def remember_prices() -> None:
    """Look once which of a model's prices are those of long requests: all their names are searched for every call."""
    search = costs.re.search
    costs.re = ModuleView(costs.re, search=lru_cache(MANY)(search))


def remember_backends() -> None:
    """Select the backend once for a model and its client settings."""
    select, resolve = backend_selection.select_backend, capabilities.resolve
    _ = execution.select_backend, capabilities.select_backend
    selected: dict[Any, BackendSelection] = {}
    resolved: dict[Any, Any] = {}

    @wraps(select)
    def select_backend(lm: Any, options: Mapping[str, Any] | None = None) -> BackendSelection:
        return remembered(selected, _key(lm, options), lambda: select(lm, options))

    @wraps(resolve)
    def resolve_once(lm: Any) -> Any:
        key = None if getattr(lm, "_providers", ()) else (lm.model, lm.model_type)
        return remembered(resolved, key, lambda: resolve(lm))

    execution.select_backend = capabilities.select_backend = select_backend
    capabilities.resolve = resolve_once


def remember_resolutions() -> None:
    """Resolve a model's name once for an engine, whose configuration does not change."""
    resolve = _Routing.resolve

    @wraps(resolve)
    def resolve_once(engine: Any, model: str) -> Any:
        known = engine.__dict__.setdefault("_dspyserve_resolutions", {})
        return remembered(known, model, lambda: resolve(engine, model))

    _Routing.resolve = resolve_once  # type: ignore[method-assign]


def remember_capabilities() -> None:
    """Find out once what a model can do; then no thread is needed for it."""
    find, prepare = capabilities._capabilities, capabilities.prepare_async
    known: dict[Any, Any] = {}

    @wraps(find)
    def find_once(lm: Any, options: Mapping[str, Any] | None = None) -> Any:
        return remembered(known, _key(lm, options), lambda: find(lm, options))

    @wraps(prepare)
    async def prepare_async(lm: Any) -> None:
        scope = capabilities._planning.get()
        if scope is not None and scope.lm is lm and scope.value is None:
            scope.value = recall(known, _key(lm, scope.options))
        await prepare(lm)

    capabilities._capabilities = find_once
    capabilities.prepare_async = prepare_async


def remember_plans() -> None:
    """Plan a request of texts alone once for an engine and a configuration."""
    plan = _Routing.plan
    _ = Request.__dataclass_fields__["config"], Config.__hash__

    @wraps(plan)
    def plan_once(engine: Any, request: Any) -> Any:
        key = _plain(request)
        if key is None:
            return plan(engine, request)
        plans = engine.__dict__.setdefault("_dspyserve_plans", {})
        return remembered(plans, key, lambda: plan(engine, request))

    _Routing.plan = plan_once  # type: ignore[method-assign]


def _plain(request: Any) -> Any:
    """What a plan depends on, if nothing but texts is sent and nothing but text can be asked for."""
    if request.tools or not isinstance(request.system, str | type(None)):
        return None
    roles = []
    for message in request.messages:
        if message.continuation or any(type(part) is not TextPart or part.continuation for part in message.parts):
            return None
        roles.append((message.role, tuple(bool(part.text) for part in message.parts)))
    return (request.model, request.system is None, tuple(roles), request.config)


def _key(lm: Any, options: Mapping[str, Any] | None) -> Any:
    """What the choice of a backend depends on; None where it cannot be said."""
    if getattr(lm, "_providers", ()) or not isinstance(getattr(lm, "_engine_spec", None), str):
        return None
    clients = [(name, value) for name, value in lm.kwargs.items() if name in CLIENT_KEYS]
    if options:
        clients += [(name, value) for name, value in options.items() if name in CLIENT_KEYS]
    prefix = lm.model.partition("/")[0].upper()
    gateway = (
        os.environ.get(f"{prefix}_API_BASE"),
        os.environ.get(f"{prefix}_BASE_URL"),
        os.environ.get("XAI_API_KEY"),
    )
    return (lm.model, lm.model_type, lm._engine_spec, tuple(clients), gateway, id(model_metadata._data))


ALL = (remember_models, remember_prices, remember_backends, remember_resolutions, remember_capabilities, remember_plans)
