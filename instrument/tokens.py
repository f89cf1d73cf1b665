"""Tokens: a file that only one user can read is the right to speak with a server in a role."""

from __future__ import annotations

import secrets
from pathlib import Path

from instrument import durable

_BYTES = 32


def token_file(folder: Path, role: str) -> Path:
    """Return the file that holds the token of a role."""
    return folder / f"token-{role}"


def token(folder: Path, role: str) -> str:
    """Return the token of a role; made once, readable by this user alone, and again where a power cut has torn it."""
    path = token_file(folder, role)
    try:
        kept = path.read_text(encoding="ascii")
    except (FileNotFoundError, UnicodeDecodeError):
        kept = ""
    if len(kept) == 2 * _BYTES:
        return kept
    path.unlink(missing_ok=True)
    made = secrets.token_hex(_BYTES)
    durable.write_secret(path, made.encode("ascii"))
    return made
