"""The example deployment's own app: it holds the demo programs."""

from django.apps import AppConfig


class ProjectConfig(AppConfig):
    """Makes `project/dspy_programs.py` known."""

    name = "project"
    verbose_name = "Example deployment"
