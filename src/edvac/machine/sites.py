"""The browser of a run, and what it may do: from the program's own words and the settings."""

from __future__ import annotations

from edvac.device.browser.chromium import maker
from edvac.device.browser.device import Browser
from edvac.device.browser.origins import Grants, read_origins, spelled_origins
from edvac.guard import Policy, Rules
from edvac.guard.sites import with_sites
from edvac.machine.settings import Settings


def grants_of(settings: Settings) -> Grants:
    """What the settings allow.

    Raises:
        ConfigError: something in them is no origin.
    """
    return Grants(
        read_origins("browser_further", settings.browser_further),
        read_origins("browser_private", settings.browser_private),
        read_origins("browser_sandbox", settings.browser_sandbox),
        steering=settings.browser_steering == "seen",
    )


def browser_of(program: str, grants: Grants) -> Browser:
    return Browser(spelled_origins(program), grants, maker(grants))


def policy_of(policy: Policy, rules: Rules, program: str, grants: Grants) -> Policy:
    """The policy with what the settings grant for the origins that this program reaches."""
    reached = spelled_origins(program) | grants.further
    sandbox = bool(reached) and reached <= grants.sandbox
    return with_sites(policy, rules, "browser", sandbox=sandbox, steering=grants.steering)
