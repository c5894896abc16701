"""What a ride with QuickRide costs: an app that is a module of typed Python functions."""

from __future__ import annotations


def fare(origin: str, destination: str) -> float:
    """The fare of a ride with QuickRide between two places."""
    return float(15 + 2 * len(origin + destination))


def cheaper(origin: str, destination: str) -> str:
    """Which of the two is cheaper: QuickRide asks MetroHail, by way of edvac."""
    from edvac_app import ask

    other = ask("metro_hail.fare", origin=origin, destination=destination)
    return "QuickRide" if fare(origin, destination) <= other else "MetroHail"
