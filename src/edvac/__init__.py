"""edvac: a computer whose processor is a language model."""

__version__ = "0.1.0"
