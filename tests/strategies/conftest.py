"""The tiny CLIPs of the models' tests, here too."""

from tests.models import conftest as models

_tiny = models._tiny
