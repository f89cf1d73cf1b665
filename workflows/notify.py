"""Messages to people: by apprise targets (mail, chat, SMS), with a picture; whether they were delivered is kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from instrument.errors import Refused

log = logging.getLogger(__name__)

#: What a message is about: a milestone passes, a problem wants a person.
Kind = Literal["info", "success", "warning", "failure"]


#: Sends kind, title, body and maybe a picture to all targets; True when all took it.
Send = Callable[[Kind, str, str, Path | None], bool]


class Messenger:
    """Sends messages to some targets, none included; a message that fails never stops a night.

    Parameters
    ----------
    send : what sends, None for nobody
    keep : told of every message and whether it was delivered (None: there was nobody to send it to)
    """

    def __init__(self, send: Send | None, keep: Callable[[dict[str, Any]], object] = lambda _message: None) -> None:
        self._send = send
        self._keep = keep

    def send(self, kind: Kind, title: str, body: str, picture: Path | None = None) -> bool | None:
        """Send a message; returns whether all targets took it, None when there are none."""
        delivered: bool | None = None
        if self._send is not None:
            try:
                delivered = self._send(kind, title, body, picture if picture is not None and picture.exists() else None)
            except (OSError, ValueError, TypeError) as error:
                delivered = False
                log.warning("%r was not sent: %s", title, error)
            if not delivered:
                log.warning("%r was not delivered to every target", title)
        self._keep({"kind": kind, "title": title, "body": body, "delivered": delivered})
        return delivered


def messenger(targets: Sequence[str], keep: Callable[[dict[str, Any]], object] = lambda _message: None) -> Messenger:
    """Return a messenger for apprise URLs such as mailto://..., slack://...; none: nobody is told.

    Refused where a target can't be used, or apprise is not installed; a URL may hold a password, so only its kind is
    named.
    """
    if not targets:
        return Messenger(None, keep)
    try:
        import apprise
    except ModuleNotFoundError as error:
        msg = "--notify needs the package apprise: pip install 'kintsugi[night]'"
        raise Refused(msg, rule="notify", field="--notify", remedy="install kintsugi[night]") from error
    sender = apprise.Apprise()
    for number, target in enumerate(targets, start=1):
        if not sender.add(target):
            shown = target.partition("://")[0]
            msg = f"--notify {number} ({shown}://...) is no target that apprise knows; see its list of services"
            raise Refused(msg, rule="notify", field="--notify", value=f"{shown}://...", remedy="write an apprise URL")

    def send(kind: Kind, title: str, body: str, picture: Path | None) -> bool:
        attached = None if picture is None else str(picture)
        return bool(sender.notify(body=body, title=title, notify_type=apprise.NotifyType(kind), attach=attached))

    return Messenger(send, keep)
