"""The tests' settings with django-unfold, a theme that replaces the templates and the style sheets of the admin.

Without the tests' Content-Security-Policy: the theme itself needs inline scripts.
"""

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS, MIDDLEWARE

INSTALLED_APPS = ["unfold", *INSTALLED_APPS]
MIDDLEWARE = [name for name in MIDDLEWARE if "content_security" not in name]
