"""The tour that `edvac demo` gives: a real run of real commands, with a model whose answers were
written beforehand, so that it needs no weights and no network.
"""

from edvac.apps.demo.tour import Shown, Tour

__all__ = ["Shown", "Tour"]
