"""Programs that are registered in code, in the `dspy_programs.py` of any installed app."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import dspy
from django.utils.module_loading import autodiscover_modules

from dspyserve.errors import RegistrationError

_NAME = re.compile(r"[-a-zA-Z0-9_]{1,100}")

Factory = TypeVar("Factory", bound=Callable[[], Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What a developer said of one program. `factory` builds it; `origin` names the place in the code.

    `inputs` and `outputs` map field names to types, for programs whose code cannot tell. `defaults` are the values of
    the program's row where nobody set others in the admin.
    """

    name: str
    factory: Callable[[], Any]
    origin: str
    inputs: Mapping[str, Any] | None = None
    outputs: Mapping[str, Any] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> dspy.Module:
        """A new instance of the program.

        Raises:
            RegistrationError: the factory raised, or gave something that is not a `dspy.Module`.
        """
        try:
            program = self.factory()
        except Exception as error:
            raise RegistrationError(f"{self.origin}: building the program {self.name!r} raised {error!r}") from error
        if not isinstance(program, dspy.Module):
            raise RegistrationError(f"{self.origin}: {self.name!r} gave {type(program).__name__}, not a dspy.Module")
        return program


class Registry:
    """The registrations of this process, in the order in which they came."""

    def __init__(self) -> None:
        self._registrations: dict[str, Registration] = {}
        self.duplicates: list[Registration] = []

    def add(self, registration: Registration) -> None:
        """Take `registration`; a second one of the same name is kept apart, for the system check to report."""
        known = self._registrations.setdefault(registration.name, registration)
        if known is not registration and known.origin != registration.origin:
            self.duplicates.append(registration)

    def get(self, name: str) -> Registration | None:
        """The registration of this name."""
        return self._registrations.get(name)

    def remove(self, name: str) -> None:
        """Forget the registration of this name; for tests that register programs of their own."""
        self._registrations.pop(name, None)
        self.duplicates = [duplicate for duplicate in self.duplicates if duplicate.name != name]

    def __iter__(self) -> Iterator[Registration]:
        return iter(list(self._registrations.values()))

    def __contains__(self, name: object) -> bool:
        return name in self._registrations


registry = Registry()


def register(
    name: str,
    *,
    title: str = "",
    description: str = "",
    inputs: Mapping[str, Any] | None = None,
    outputs: Mapping[str, Any] | None = None,
    language_model: str = "",
    adapter: Literal["", "chat", "json", "xml"] = "",
    execution: Literal["auto", "thread", "async"] = "auto",
    max_concurrency: int | None = None,
    max_queue: int | None = None,
    timeout: float | None = None,
    trace_level: Literal["full", "metadata", "off"] = "full",
    access: Literal["public", "authenticated", "restricted"] = "authenticated",
) -> Callable[[Factory], Factory]:
    """Serve the decorated `dspy.Module` class, or the module that the decorated factory returns, under `name`.

    Args:
        name: Part of the program's address: letters, digits, `-` and `_`, at most 100.
        title: What people read; made from the name where it is empty.
        description: What the program does; the class's or factory's docstring where it is empty.
        inputs: Types of the input fields, where neither a signature nor the annotations of `forward` tell them.
        outputs: Types of the output fields, where no signature tells them.
        language_model: The name of a stored language model; empty for the default one.
        adapter: How prompts are written and answers read; empty for DSPy's default.
        execution: `auto` runs native-async programs on the event loop and all others in threads.
        max_concurrency: Executions at a time and process.
        max_queue: Executions that may wait when all are taken.
        timeout: Seconds per execution.
        trace_level: What is stored of an execution.
        access: Who may run it.

    Everything but `inputs` and `outputs` is a default: what people set in the admin stays.

    Raises:
        RegistrationError: the name cannot stand in an address, or the decorated object is not callable.
    """
    if not _NAME.fullmatch(name):
        raise RegistrationError(f"{name!r} cannot name a program: use letters, digits, - and _, at most 100")

    def decorate(factory: Factory) -> Factory:
        if not callable(factory):
            raise RegistrationError(f"{name!r}: register() decorates a dspy.Module class or a factory")
        defaults = {
            "title": title or name.replace("-", " ").replace("_", " ").capitalize(),
            "description": description or _own_doc(factory),
            "language_model": language_model,
            "adapter": adapter,
            "execution": execution,
            "max_concurrency": max_concurrency,
            "max_queue": max_queue,
            "timeout": timeout,
            "trace_level": trace_level,
            "access": access,
        }
        registry.add(
            Registration(
                name=name, factory=factory, origin=_origin(factory), inputs=inputs, outputs=outputs, defaults=defaults
            )
        )
        return factory

    return decorate


def autodiscover() -> None:
    """Import the `dspy_programs` module of every installed app that has one. An error inside one is raised."""
    autodiscover_modules("dspy_programs")


def _own_doc(factory: Any) -> str:
    # Without inspect.getdoc: a class without a docstring must not be described by dspy.Module's.
    return inspect.cleandoc(
        factory.__dict__.get("__doc__") or "" if isinstance(factory, type) else factory.__doc__ or ""
    )


def _origin(factory: Any) -> str:
    return f"{getattr(factory, '__module__', '?')}.{getattr(factory, '__qualname__', repr(factory))}"
