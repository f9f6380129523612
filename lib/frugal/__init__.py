"""frugal: language models that learn without training a transformer end to end."""

from importlib.metadata import version

__version__ = version("frugal")
