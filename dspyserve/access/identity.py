"""Who calls: nobody known, a user, or the holder of an API key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKey:
    """An API key that was found good. `programs` are the ids of the only ones that it reaches; None means all."""

    pk: int
    user_id: Any
    scopes: frozenset[str]
    programs: frozenset[int] | None
    rate_limit: str

    def reaches(self, program_id: int | None) -> bool:
        """Whether it is for this program."""
        return self.programs is None or program_id in self.programs


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller. With a key, the key alone decides what is allowed, whoever owns it."""

    user: Any = None
    key: KnownKey | None = None

    @property
    def name(self) -> str:
        """One string per caller, such as `key:3`, `user:5` or `anonymous`."""
        if self.key is not None:
            return f"key:{self.key.pk}"
        return "anonymous" if self.user is None else f"user:{self.user.pk}"

    @property
    def is_anonymous(self) -> bool:
        """Whether nothing is known of the caller."""
        return self.key is None and self.user is None

    @property
    def user_id(self) -> Any:
        """In whose name programs run, if anybody's."""
        if self.key is not None:
            return self.key.user_id
        return None if self.user is None else self.user.pk

    @property
    def key_id(self) -> int | None:
        """The API key's."""
        return None if self.key is None else self.key.pk


ANONYMOUS: Final = Identity()
