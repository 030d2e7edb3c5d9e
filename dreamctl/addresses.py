"""Which IP addresses a download may go to.

`ipaddress.is_global` is not asked: Python 3.11 calls multicast, 192.0.0.8, NAT64, 6to4, fec0::/10 and ::127.0.0.1
global. The networks below are those of IANA's registries of special-purpose addresses (RFC 6890 and its successors).
"""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Where people's own servers are: refused unless the user vouches for them.
_PRIVATE = (
    ("127.0.0.0/8", "this computer"),
    ("::1/128", "this computer"),
    ("10.0.0.0/8", "a private network"),
    ("172.16.0.0/12", "a private network"),
    ("192.168.0.0/16", "a private network"),
    ("100.64.0.0/10", "a provider's inner network"),
    ("fc00::/7", "a private network"),
)
# Where no picture is: refused always. Clouds hand out credentials at the metadata addresses.
_NEVER = (
    ("100.100.100.200/32", "a cloud's metadata service"),
    ("fd00:ec2::254/128", "a cloud's metadata service"),
    ("169.254.0.0/16", "a link-local address, such as a cloud's metadata service"),
    ("0.0.0.0/8", "an address of nobody"),
    ("192.0.0.0/24", "a reserved address"),
    ("192.0.2.0/24", "an address for documentation"),
    ("192.88.99.0/24", "a 6to4 relay"),
    ("198.18.0.0/15", "an address for benchmarks"),
    ("198.51.100.0/24", "an address for documentation"),
    ("203.0.113.0/24", "an address for documentation"),
    ("224.0.0.0/4", "a multicast address"),
    ("240.0.0.0/4", "a reserved address"),
    ("64:ff9b::/96", "a NAT64 address"),
    ("64:ff9b:1::/48", "a NAT64 address"),
    ("2001::/32", "a Teredo tunnel"),
    ("2001::/23", "a reserved address"),
    ("2001:db8::/32", "an address for documentation"),
    ("2002::/16", "a 6to4 tunnel"),
    ("3fff::/20", "an address for documentation"),
    ("fe80::/10", "a link-local address"),
    ("fec0::/10", "a site-local address"),
    ("ff00::/8", "a multicast address"),
)
_GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")  # all that is routed; the rest is unassigned


def _table(rows: tuple[tuple[str, str], ...]) -> tuple[tuple[Network, str], ...]:
    return tuple((ipaddress.ip_network(network), kind) for network, kind in rows)


_PRIVATE_NETWORKS, _NEVER_NETWORKS = _table(_PRIVATE), _table(_NEVER)


def unwrapped(text: str) -> Address:
    """The address that `text` is, IPv4 where it is an IPv4-mapped IPv6 address. Raises ValueError."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or ipaddress.IPv6Address(int(address))  # without a zone, which no network contains
    return address


def private(address: Address) -> str | None:
    """What kind of private address it is; None for all others."""
    return _kind(address, _PRIVATE_NETWORKS)


def refusal(address: Address, allow_private: bool = False) -> str | None:
    """What an address is that must not be connected to, such as "a private network"; None where it may be."""
    if never := _kind(address, _NEVER_NETWORKS):
        return never
    if kind := private(address):
        return None if allow_private else kind
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_IPV6:
        return "an address outside the public internet"
    return None


def _kind(address: Address, networks: tuple[tuple[Network, str], ...]) -> str | None:
    return next((kind for network, kind in networks if address.version == network.version and address in network), None)
