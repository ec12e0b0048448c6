"""The test-suite as an app, so that its programs and templates are found."""

from django.apps import AppConfig


class TestsConfig(AppConfig):
    """Holds the programs that tests serve."""

    name = "tests"
