"""Two-way TLS for a server that is reached from other computers: an authority of its own, and who has its signature.

    ca.pem ca-key.pem                  the authority; its key stays with whoever made it
    server.pem server-key.pem          the server's
    operate.pem operate-key.pem        a client's that may operate
    observe.pem observe-key.pem        a client's that may look

Nothing that another authority signed is let in, the operating system's own included.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from instrument import durable
from instrument.errors import Refused

ROLES = ("operate", "observe")
_YEARS = 3
_AUTHORITY = "kintsugi instrument authority"


def make(folder: Path, hosts: Sequence[str]) -> list[Path]:
    """Make an authority, a server's certificate for `hosts` (names or addresses), and one for each role.

    Returns the files. Refused where there are some already, no host is named, or the package cryptography is missing.
    """
    if not hosts:
        msg = "a server's certificate names the host it is for: --for hydra.lab"
        raise Refused(msg, rule="certificates", field="--for", remedy="name the microscope PC as clients call it")
    if (folder / "ca.pem").exists():
        msg = f"{folder} has certificates already, and clients may have them; name a new folder"
        raise Refused(msg, rule="certificates", field="--certificates", value=str(folder), remedy="name a new folder")
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except ModuleNotFoundError as error:
        msg = "making certificates needs the package cryptography: pip install 'kintsugi[tls]'"
        raise Refused(msg, rule="certificates", field="--make-certificates", remedy="install kintsugi[tls]") from error

    def name(common: str) -> Any:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])

    def signed(common: str, key: Any, extensions: Sequence[Any]) -> Any:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(common)).issuer_name(name(_AUTHORITY)).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=365 * _YEARS))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False
            )
        )  # fmt: skip
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(authority, hashes.SHA256())

    def write(stem: str, certificate: Any, key: Any) -> list[Path]:
        place, secret = folder / f"{stem}.pem", folder / f"{stem}-key.pem"
        durable.atomic_write_bytes(place, certificate.public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        data = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        durable.write_secret(secret, data)
        return [place, secret]

    durable.make_dir(folder)
    authority = ec.generate_private_key(ec.SECP256R1())
    own = [
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (x509.KeyUsage(False, False, False, False, False, True, True, False, False), True),
    ]
    files = write("ca", signed(_AUTHORITY, authority, own), authority)
    alternatives = x509.SubjectAlternativeName([_general(x509, host) for host in hosts])
    leaf = (x509.BasicConstraints(ca=False, path_length=None), True)
    for stem, usage, more in (
        ("server", ExtendedKeyUsageOID.SERVER_AUTH, [(alternatives, False)]),
        *((role, ExtendedKeyUsageOID.CLIENT_AUTH, []) for role in ROLES),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        files += write(stem, signed(stem, key, [leaf, (x509.ExtendedKeyUsage([usage]), False), *more]), key)
    return files


def server_context(folder: Path) -> ssl.SSLContext:
    """Return how a server speaks: with its own certificate, to those alone that the authority has signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _loaded(context, folder, "server")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(folder: Path) -> ssl.SSLContext:
    """Return how a client speaks: it wants the host's certificate, and shows its own, to operate if it has that one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the host's name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _loaded(context, folder, next((role for role in ROLES if (folder / f"{role}-key.pem").exists()), ROLES[0]))
    return context


def role_of(certificate: dict[str, Any] | None) -> str:
    """Return the role that a client's certificate, as `getpeercert` gives it, is for; empty for none of ours."""
    for part in (certificate or {}).get("subject", ()):
        for field, value in part:
            if field == "commonName" and value in ROLES:
                return str(value)
    return ""


# -- private ----------------------------------------------------------------------------------------------------------


def _loaded(context: ssl.SSLContext, folder: Path, stem: str) -> None:
    try:
        context.load_cert_chain(folder / f"{stem}.pem", folder / f"{stem}-key.pem")
        context.load_verify_locations(folder / "ca.pem")
    except OSError as error:
        msg = f"{folder} lacks {stem}.pem, its key, or ca.pem, or they can't be read: {error}"
        raise Refused(
            msg,
            rule="certificates",
            field="certificates",
            value=str(folder),
            remedy="kintsugi serve --make-certificates",
        ) from error


def _general(x509: Any, host: str) -> Any:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
