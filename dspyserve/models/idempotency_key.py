"""Answers that are given again when a client repeats a request."""

from __future__ import annotations

from django.db import models


class IdempotencyKey(models.Model):
    """One use of the header `Idempotency-Key`: in flight until `lease_until`, then with the answer that was given.

    Neither the key nor the answer can be read here: `digest` and `body_digest` are hashes that the key went into, and
    the answer is encrypted with it.
    """

    digest = models.CharField(max_length=64, unique=True)
    body_digest = models.CharField(max_length=64)
    lease_until = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)
    status = models.PositiveSmallIntegerField(null=True)
    headers = models.JSONField(default=dict)
    body = models.BinaryField(null=True)

    def __str__(self) -> str:
        return self.digest[:12]
