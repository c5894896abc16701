"""What several jobs need to make their inputs."""

from __future__ import annotations
