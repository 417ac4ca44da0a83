"""Whether a hub can be reached, asked once and quickly: libraries would retry for a minute."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit


def offline() -> bool:
    """Whether the environment forbids the hub ($HF_HUB_OFFLINE)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def reachable(url: str, *, timeout: float = 3.0) -> bool:
    """Whether the host of `url` accepts a connection (itself or through a proxy) within `timeout` seconds."""
    parts = urlsplit(url)
    proxy = os.environ.get(f"{parts.scheme}_proxy") or os.environ.get(f"{parts.scheme.upper()}_PROXY")
    target = urlsplit(proxy) if proxy else parts
    port = target.port or (443 if target.scheme == "https" else 80)
    try:
        with socket.create_connection((target.hostname or "", port), timeout=timeout):
            return True
    except (OSError, ValueError):
        return False


def hub_endpoint() -> str:
    """Address of the Hugging Face hub; $HF_ENDPOINT where it is a mirror."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")
