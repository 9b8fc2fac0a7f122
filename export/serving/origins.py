"""Which names the server may be called by when no token protects it.

A page of another site runs in the browser of somebody who can reach this server, and may send requests to it.
With a name of its own that it lets point to this machine (DNS rebinding) it could also read the answers. The
headers `Host` and `Origin`, which no page can forge, give both away. Clients that are no browsers send no
`Origin`.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping

from gdas_tf.export.serving.http import HttpError


class Origins:
    """Checks `Host` and `Origin`.

    Args:
        host: address or name that the server listens on.
        more: further names that it is called by.
    """

    def __init__(self, host: str, more: Iterable[str] = ()) -> None:
        self._more = frozenset(map(_bare, more))
        self._names = {"localhost", _bare(host), *self._more}
        # A page of another site always has a name, so that an address is as good as our own.
        self._any_address = False
        if _address(_bare(host)) in map(ipaddress.ip_address, ("0.0.0.0", "::")):
            self._any_address = True
            self._names.add(socket.gethostname().lower())

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Makes sure that a request is meant for this server and comes from its own page or from no page.

        Raises:
            HttpError: 403, it is meant for another server, or comes from another page.
        """
        host = headers.get(b"host")
        if host is not None and not self._accepts(_name(host)):
            raise _refused("Host", host, _name(host))
        origin = headers.get(b"origin")
        if origin is None:
            return
        _, separator, ours = origin.partition(b"://")
        if not separator or (ours != host and _name(ours) not in self._more):
            raise _refused("Origin", origin, _name(ours))

    def _accepts(self, name: str) -> bool:
        if name in self._names or name.endswith(".localhost"):
            return True
        address = _address(name)
        return address is not None and (self._any_address or address.is_loopback)


def _refused(header: str, value: bytes, name: str) -> HttpError:
    return HttpError(
        403,
        f"header {header}: {value[:80].decode('latin-1')!r} is none of this server's names; if it should be, "
        f"start the server with --allowed-hosts {name[:80] or 'NAME'}, or with a token (--token-file)",
    )


def _name(host: bytes) -> str:
    """Returns the name or address in `NAME:PORT` or `[ADDRESS]:PORT`."""
    text = host.decode("latin-1").strip()
    if text.startswith("["):
        return _bare(text[1:].partition("]")[0])
    return _bare(text.partition(":")[0])


def _bare(name: str) -> str:
    return name.strip("[] ").lower().removesuffix(".")


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
