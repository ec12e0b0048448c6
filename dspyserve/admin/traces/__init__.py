"""Traces in the admin: the list, the page of one trace, and what reviewers do there."""
