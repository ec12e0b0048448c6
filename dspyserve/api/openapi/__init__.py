"""The API's description, OpenAPI 3.1: made anew for every caller from the programs that it may run."""

from dspyserve.api.openapi.document import document

__all__ = ["document"]
