"""How Pyro5 is used: msgpack only, tokens in the handshake, small messages, answers that carry errors as plain values.

The other serializers are removed, for a server decodes what a client sends before it knows who it is.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import Pyro5.api
import Pyro5.errors
import Pyro5.serializers
import Pyro5.socketutil
from pydantic import ValidationError
from Pyro5.configure import global_config as config
from Pyro5.protocol import SendingMessage

from instrument.certificates import role_of
from instrument.door import OBSERVE, OPERATE, WORKERS, Door, Workers
from instrument.errors import ConnectionLost, DeviceFault, InstrumentError, NotInControl, Refused, from_plain

OBJECT = "kintsugi.instrument"
LOOPBACK = "127.0.0.1"
#: Frames go in chunks of 1 MiB; nothing that is larger than this is a message of ours.
MOST_BYTES = 8 << 20
#: A connection that has not shown its token within this is dropped, whatever it sends until then (s).
HANDSHAKE_S = 10.0
#: What a refused client is told; a server that is full says otherwise.
_REFUSED = "no valid token"


def configure(certificates: Path | None = None) -> None:
    """Set Pyro5 up for this process; harmless when done again.

    With a folder of certificates every connection of this process speaks two-way TLS.
    """
    config.SERIALIZER = "msgpack"
    config.MAX_MESSAGE_SIZE = MOST_BYTES
    config.COMPRESSION = False
    config.SOCK_NODELAY = True
    config.MAX_RETRIES = 0
    config.SERVERTYPE = "thread"
    config.THREADPOOL_SIZE = WORKERS
    config.LOGWIRE = False
    config.POLLTIMEOUT = 0.5  # how soon an accepting loop sees that it should end
    if certificates is not None:
        _speak_tls(certificates)
    for name in ("serpent", "marshal", "json"):
        found = Pyro5.serializers.serializers.pop(name, None)
        if found is not None:
            Pyro5.serializers.serializers_by_id.pop(found.serializer_id, None)
    Pyro5.serializers.MarshalSerializer.serializer_id = Pyro5.serializers.MsgpackSerializer.serializer_id


def _speak_tls(folder: Path) -> None:
    """Give Pyro5 our own contexts: those that it makes itself let in whomever the operating system trusts."""
    from instrument.certificates import client_context, server_context

    config.SSL = True
    if (folder / "server-key.pem").exists():
        config.SSL_SERVERCERT = str(folder / "server.pem")
        setattr(Pyro5.socketutil, "__ssl_server_context", server_context(folder))
    setattr(Pyro5.socketutil, "__ssl_client_context", client_context(folder))


def check_host(host: str, certificates: Path | None) -> None:
    """Refuse an address that other computers reach unless TLS is spoken there."""
    if certificates is None and not (host in ("", "localhost") or host.startswith("127.")):
        msg = f"--host {host} is reached from other computers: that needs --certificates, or use ssh -L"
        raise Refused(msg, rule="loopback-or-tls", field="--host", value=host)


class TokenDaemon(Pyro5.api.Daemon):
    """A daemon that lets nobody in without a token, and remembers who may operate.

    Over TLS the token must be one that the client's certificate is for.

    Parameters
    ----------
    tokens : by role
    port, host : where to listen; 0 takes a free port. OSError or OverflowError where that can't be
    """

    def __init__(self, tokens: Mapping[str, str], port: int = 0, host: str = LOOPBACK) -> None:
        config.COMMTIMEOUT = HANDSHAKE_S  # of new connections; each client sets its own
        self._tokens, self.host = dict(tokens), host
        self.door = Door(HANDSHAKE_S, lambda _who, _why: None)
        start: Any = super().__init__  # Pyro5 has no types
        start(host=host, port=port)
        transport: Any = self.transportServer
        transport.pool.close()
        transport.pool = Workers(self.door)
        if config.SSL:  # else one silent client keeps the loop that accepts from all others
            self.sock.do_handshake_on_connect = False

    def publish(self, thing: object, name: str = OBJECT) -> None:
        """Give clients what `published` made, under its name."""
        register: Any = self.register
        register(thing, name)

    def close(self) -> None:
        """Stop listening."""
        close: Any = super().close
        close()

    def validateHandshake(self, conn: Any, data: Any) -> str:  # noqa: N802 - Pyro's name
        """Return the role of a token; PermissionError refuses the connection."""
        try:
            role = self._role(conn, data)
            self.door.enter(conn.sock, role)
        except PermissionError as error:
            conn.kintsugi_refused = str(error)
            raise
        conn.kintsugi_role = role
        return role

    def _role(self, conn: Any, data: Any) -> str:
        given = str(data.get("token", "")) if isinstance(data, dict) else ""
        for role, token in self._tokens.items():
            if hmac.compare_digest(given.encode(), token.encode()):
                if config.SSL and not _may(role, role_of(conn.getpeercert())):
                    break
                return role
        raise PermissionError(_REFUSED)

    def _housekeeping(self) -> None:
        """Look after the door too, twice a second, in Pyro's own thread for that."""
        usual: Any = super()._housekeeping
        usual()
        self.door.look()


def _may(role: str, certified: str) -> bool:
    """Tell whether a certificate is good for a role: one to operate is good for looking too."""
    return certified == OPERATE or (certified == OBSERVE and role == OBSERVE)


def may_operate() -> bool:
    """Tell whether the call in hand comes over a connection with the token to operate."""
    return getattr(Pyro5.api.current_context.client, "kintsugi_role", "") == OPERATE


class Line:
    """One connection to a server's object; belongs to the thread that uses it.

    Parameters
    ----------
    host, port, token : where and with what right
    timeout_s : longest time that one call may take
    name : of the object
    """

    def __init__(self, host: str, port: int, token: str, timeout_s: float = 30.0, name: str = OBJECT) -> None:
        configure()
        proxy: Any = Pyro5.api.Proxy  # Pyro5 has no types
        self._proxy: Any = proxy(f"PYRO:{name}@{host}:{port}")
        self._proxy._pyroHandshake = {"token": token}  # noqa: SLF001 - Pyro's own interface
        self._proxy._pyroTimeout = timeout_s  # noqa: SLF001
        self._proxy._pyroMaxRetries = 0  # noqa: SLF001

    def call(self, method: str, *args: Any) -> Any:
        """Call a method; raises the error that the server sent, or ConnectionLost."""
        try:
            self._proxy._pyroClaimOwnership()  # noqa: SLF001
            answer = getattr(self._proxy, method)(*args)
        except (Pyro5.errors.CommunicationError, OSError, EOFError) as error:
            self._proxy._pyroRelease()  # noqa: SLF001
            if f"rejected: {_REFUSED}" in str(error):
                msg = "the server refused the token"
                raise NotInControl(msg) from error
            msg = f"the server does not answer ({type(error).__name__}: {error})"
            raise ConnectionLost(msg, method=method) from error
        if not isinstance(answer, dict) or ("ok" not in answer and "error" not in answer):
            msg = "the server sent something that is no answer"
            raise ConnectionLost(msg, method=method)
        if "error" in answer:
            raise from_plain(answer["error"])
        return answer["ok"]

    def keep(self, timeout_s: float) -> None:
        """Open the connection where it isn't, else see that it stands; a broken one is closed. ConnectionLost if so."""
        usual_s = self._proxy._pyroTimeout  # noqa: SLF001
        try:
            self._proxy._pyroClaimOwnership()  # noqa: SLF001
            self._proxy._pyroTimeout = timeout_s  # noqa: SLF001
            if not self._proxy._pyroBind():  # noqa: SLF001
                ping: Any = SendingMessage.ping
                ping(self._proxy._pyroConnection)  # noqa: SLF001
        except (Pyro5.errors.CommunicationError, OSError, EOFError) as error:
            self._proxy._pyroRelease()  # noqa: SLF001
            msg = f"a connection that is kept open is broken ({type(error).__name__}: {error})"
            raise ConnectionLost(msg) from error
        finally:
            self._proxy._pyroTimeout = usual_s  # noqa: SLF001

    def close(self) -> None:
        """Close the connection."""
        self._proxy._pyroClaimOwnership()  # noqa: SLF001
        self._proxy._pyroRelease()  # noqa: SLF001


def caller() -> int:
    """Return a number of the connection over which the call in hand comes, its own as long as it stands."""
    return id(Pyro5.api.current_context.client)


Told = Callable[[str, InstrumentError], None]


def published(thing: object, names: Iterable[str], failed: Told = lambda _method, _error: None) -> Any:
    """Return the object that Pyro5 publishes: these methods and nothing else, errors as plain values.

    `failed` is told of each call that ended with an error.
    """
    methods: dict[str, Callable[..., Any]] = {}
    for name in names:
        method = answered(getattr(thing, name), failed)

        def forward(self: object, *args: Any, _method: Callable[..., Any] = method) -> Any:
            del self
            return _method(*args)

        forward.__name__ = name
        methods[name] = Pyro5.api.expose(forward)
    return type("Published", (), methods)()


@dataclass(frozen=True)
class Place:
    """Where a server is, and the right to speak with it."""

    host: str
    port: int
    token: str


def place_of(url: str) -> Place:
    """Return the place of `pyro://host:port?token_file=FILE[&certificates=DIR]`.

    With certificates this process speaks two-way TLS from now on. Raises Refused for a URL without port or token file.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    try:
        port = parts.port
    except ValueError:
        port = None
    if port is None or "token_file" not in options:
        msg = f"{url} lacks a port or a token: write pyro://host:port?token_file=FILE"
        raise Refused(msg, rule="pyro-url", field="instrument", value=url, remedy="name port and token file")
    try:
        token = Path(options["token_file"]).read_text(encoding="ascii").strip()
    except OSError as error:
        msg = f"{options['token_file']} can't be read: {error.strerror}"
        raise Refused(msg, rule="pyro-url", field="token_file", value=options["token_file"]) from error
    if "certificates" in options:
        configure(Path(options["certificates"]))
    return Place(parts.hostname or LOOPBACK, port, token)


def answered(
    function: Callable[..., Any], failed: Told = lambda _method, _error: None
) -> Callable[..., dict[str, Any]]:
    """Make a server's method answer with plain values: {"ok": ...} or {"error": ...}; nothing else crosses the wire."""

    @wraps(function)
    def method(*args: Any) -> dict[str, Any]:
        try:
            return {"ok": function(*args)}
        except (InstrumentError, ValidationError, OSError, TypeError, ValueError, KeyError) as error:
            known = _as_ours(error, function.__name__)
        failed(function.__name__, known)
        return {"error": known.to_plain()}

    return method


def _as_ours(error: Exception, method: str) -> InstrumentError:
    """Return what a call failed with as one of our errors: the disk's, or a request that makes no sense."""
    if isinstance(error, InstrumentError):
        return error
    if isinstance(error, OSError):
        return DeviceFault(f"the server's disk: {error}")
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "message"
        return Refused(
            f"malformed request: {where}: {first['msg']}", rule="well-formed", field=where,
            remedy="send what the wire format asks for",
        )  # fmt: skip
    return Refused(f"malformed request: {error}", rule="well-formed", field=method)
