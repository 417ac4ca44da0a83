"""W&B's own client: opening it, and saying in a line what it raises."""

from __future__ import annotations

from typing import Any

from headstart.config.wandb_access import base_url, wandb_key_configured
from headstart.errors import RecordError
from headstart.redaction import redact

TIMEOUT = 30


def open_api(said: str) -> Any:
    """W&B's client; raises RecordError where there is no key, or it is refused."""
    if not wandb_key_configured():
        raise RecordError(f"{said}: there is no W&B key; `wandb login` or WANDB_API_KEY.")
    import wandb

    try:
        return wandb.Api(timeout=TIMEOUT)
    except Exception as error:
        raise RecordError(f"{said}: {reason_of(error)}") from error


def reason_of(error: BaseException) -> str:
    """One line on what W&B's client raised."""
    text = " ".join(f"{error} {error.__cause__ or ''}".split())
    lowered = text.lower()
    if any(word in lowered for word in ("401", "unauthorized", "not logged in", "invalid api key", "permission")):
        return "W&B refuses the key (`wandb login --relogin`)."
    if "could not find project" in lowered or "not found" in lowered or "404" in lowered:
        return "W&B has no such project, or none that this key may see."
    if any(word in lowered for word in ("timed out", "timeout", "connection", "max retries", "500", "502", "503")):
        return f"W&B ({base_url()}) does not answer."
    return f"W&B says: {redact(text[:200]) or type(error).__name__}"
