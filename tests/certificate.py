"""Certificates for tests of TLS, made by OpenSSL."""

from pathlib import Path

from crossns import proc


async def certificate(directory: Path, name: str, authority: str = "", where: str = "DNS:nowhere") -> tuple[Path, Path]:
    """(certificate, key) for `name`, signed by `authority` or by itself, in `directory`; `where` is its subjectAltName."""
    cert, key = directory / f"{name}.pem", directory / f"{name}.key"
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    options = ["-subj", f"/CN={name}", "-keyout", str(key), "-out", str(cert)]
    if authority:
        options += ["-CA", str(directory / f"{authority}.pem"), "-CAkey", str(directory / f"{authority}.key")]
        options += ["-addext", "basicConstraints=CA:FALSE", "-addext", f"subjectAltName={where}"]
    (await proc.run([*new, *options])).check()
    return cert, key
