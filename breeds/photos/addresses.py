"""Addresses of photos on the web: which ones are taken, and which addresses of machines are public."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from breeds.errors import PhotoError

#: How many characters an address may have; browsers and servers take little more.
LONGEST_URL = 8000

_URL = re.compile("https?://", re.IGNORECASE)
# What no address holds: blanks and controls, which parsers cut out each in its own way, a backslash, which
# some take for a slash, and halves of characters.
_NEVER = re.compile("[\x00-\x20\x7f-\xa0\\\\\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
# Host and port; what is written otherwise, programs read in more ways than one.
_AUTHORITY = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:@%]+)(:[0-9]{1,5})?")
_LONGEST_HOST = 253
_NAME = re.compile(r"([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}")
# What may stay as it is in a path and a query, % among them; the rest is written as %XX.
_PLAIN = "%/?:@!$&'()*+,;=-._~[]"

_PORTS = {"http": 80, "https": 443}

# The networks of the registry of special purposes (IANA, RFC 6890) that lead to no public machine, and
# those that wrap an IPv4 address, in which a private one could hide. Python's own `is_global` has changed its
# mind between versions; it is asked as well.
_PRIVATE_4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
            "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
        ),
    )
)  # fmt: skip
# All that is given out to public machines lies in here ...
_GIVEN_6 = ipaddress.IPv6Network("2000::/3")
# ... but for protocols (Teredo is 2001::/32), documentation, and 6to4.
_PRIVATE_6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
# Where a network has IPv6 only, names of IPv4 machines are answered so: the last 32 bits are their address.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_url(name: str) -> bool:
    """Say whether a name asks for a photo from the web, and is no path."""
    return _URL.match(name) is not None


def is_public(address: str) -> bool:
    """Say whether an address, IPv4 or IPv6, is one of a machine on the public internet.

    Examples
    --------
    >>> is_public("8.8.8.8"), is_public("10.0.0.1"), is_public("::ffff:8.8.8.8"), is_public("localhost")
    (True, False, False, False)
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv4Address):
        return found.is_global and not any(found in network for network in _PRIVATE_4)
    if found.scope_id is not None:
        return False
    if found in _NAT64:
        return is_public(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)))
    return found.is_global and found in _GIVEN_6 and not any(found in network for network in _PRIVATE_6)


@dataclass(frozen=True)
class Target:
    """An address taken apart, once and for all: what is checked here is what is asked for.

    Attributes
    ----------
    host
        A name in ASCII, lower case, without a dot at its end, or an address as it is looked up.
    port
        As the address says, or its scheme's.
    path
        What is asked of the server, in ASCII: path and query.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host and port as they stand in an address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole address."""
        return f"{self.scheme}://{self.authority}{self.path}"

    def follow(self, location: str) -> Target:
        """Return where a redirect leads that was answered here.

        Raises
        ------
        PhotoError
            If that is no address to be asked, or one without encryption while this one has it.
        """
        try:
            _check(location)  # before the standard library cuts out what it does not like
            found = parse(urljoin(self.url, location))
        except (PhotoError, ValueError) as error:
            reason = error if isinstance(error, PhotoError) else "it is none"
            raise PhotoError(f"is sent on to an address that is not taken: {reason}") from None
        if self.scheme == "https" and found.scheme == "http":
            raise PhotoError("is sent on from https to http, which anybody on the way can change")
        return found


def parse(url: str) -> Target:
    """Take an address apart, and refuse whatever two programs could read in two ways.

    Raises
    ------
    PhotoError
        With the reason, if it is no address of http or https, or has a name or a password in it.
    """
    _check(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise PhotoError("its host or port is not written as in an address of the web") from None
    scheme = parts.scheme
    if scheme not in _PORTS:
        raise PhotoError(f"is an address of {scheme[:20] or 'nothing'}: only http and https are fetched")
    if "@" in parts.netloc:
        raise PhotoError("has a user's name or password in it; none is ever sent")
    if port == 0 or not _AUTHORITY.fullmatch(parts.netloc):
        raise PhotoError("its host or port is not written as in an address of the web")
    query = f"?{parts.query}" if parts.query else ""
    path = quote((parts.path or "/") + query, safe=_PLAIN)
    return Target(scheme, _host(parts.hostname or ""), port or _PORTS[scheme], path)


def _check(url: str) -> None:
    if len(url) > LONGEST_URL:
        raise PhotoError(f"its address has more than {LONGEST_URL} characters")
    if _NEVER.search(url):
        raise PhotoError("its address has a character that none may have (a blank, a control, a backslash)")


def _host(host: str) -> str:
    """Return a host in ASCII; who it is, is seen when it is looked up."""
    if ":" in host:
        try:
            address = ipaddress.IPv6Address(host)
        except ValueError:
            raise PhotoError("its host is no address of IPv6") from None
        return address.compressed
    if not host.isascii() and len(host) <= _LONGEST_HOST:
        import idna

        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError:
            raise PhotoError("its host is no name that can be looked up") from None
    host = host.removesuffix(".").lower()
    if len(host) > _LONGEST_HOST or not _NAME.fullmatch(host):
        raise PhotoError("its host is no name that can be looked up")
    return host
