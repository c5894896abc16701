"""Hosts that are network namespaces, on one bridge with this machine. Needs root."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass


def ip(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ip", *arguments], capture_output=True, text=True, check=check, timeout=20
    )


def missing() -> str:
    """Why there can be none here; empty where there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"edvt{os.getpid() % 10000}"
    try:
        made = ip("netns", "add", name, check=False)
        bridge = ip("link", "add", name, "type", "bridge", check=False)
    except (OSError, subprocess.TimeoutExpired) as problem:
        return f"`ip` cannot be run: {problem}"
    ip("netns", "del", name, check=False)
    ip("link", "del", name, check=False)
    refused = [done.stderr.strip() for done in (made, bridge) if done.returncode]
    return f"the kernel refuses network namespaces: {refused[0]}" if refused else ""


@dataclass(frozen=True)
class Hosts:
    """A bridge at ``NET.1``, and hosts at ``NET.11`` and so on."""

    tag: str
    net: str
    names: tuple[str, ...]

    @staticmethod
    def make(names: tuple[str, ...]) -> Hosts:
        number = os.getpid() % 200
        made = Hosts(f"e{os.getpid() % 100000}", f"10.213.{number}", names)
        try:
            made._build()
        except subprocess.CalledProcessError:
            made.close()
            raise
        return made

    @property
    def address(self) -> str:
        return f"{self.net}.1"

    def _build(self) -> None:
        bridge = f"{self.tag}b"
        ip("link", "add", bridge, "type", "bridge")
        ip("addr", "add", f"{self.address}/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for number, name in enumerate(self.names):
            space, ours, theirs = self.space(name), self.link(name), f"{self.tag}p{number}"
            ip("netns", "add", space)
            ip("link", "add", ours, "type", "veth", "peer", "name", theirs)
            ip("link", "set", ours, "master", bridge, "up")
            ip("link", "set", theirs, "netns", space)
            ip("-n", space, "addr", "add", f"{self.net}.{11 + number}/24", "dev", theirs)
            ip("-n", space, "link", "set", theirs, "up")
            ip("-n", space, "link", "set", "lo", "up")

    def space(self, name: str) -> str:
        return f"{self.tag}-{name}"

    def link(self, name: str) -> str:
        return f"{self.tag}v{self.names.index(name)}"

    def inside(self, name: str) -> list[str]:
        """What to put in front of a command, so that it runs on that host."""
        return ["ip", "netns", "exec", self.space(name)]

    def cut(self, name: str) -> None:
        ip("link", "set", self.link(name), "down")

    def mend(self, name: str) -> None:
        ip("link", "set", self.link(name), "up")

    def close(self) -> None:
        for name in self.names:
            ip("netns", "del", self.space(name), check=False)
            ip("link", "del", self.link(name), check=False)
        ip("link", "del", f"{self.tag}b", check=False)
