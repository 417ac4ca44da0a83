"""How W&B is reached: which mode, which server, whether there is a key. Nothing here imports it."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit


def wandb_mode(choice: str) -> str:
    """`online`, `offline` or `disabled`: $WANDB_MODE first, then `choice`, then whether there is a key."""
    named = os.environ.get("WANDB_MODE", "")
    if named in ("online", "offline", "disabled"):
        return named
    if choice != "auto":
        return choice
    return "online" if wandb_key_configured() else "offline"


def base_url() -> str:
    """Address of the W&B server; $WANDB_BASE_URL where it is another."""
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")


def wandb_key_configured() -> bool:
    """Whether a W&B key is in the environment or in the user's netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(base_url()).hostname or ""
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(str(path)).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
