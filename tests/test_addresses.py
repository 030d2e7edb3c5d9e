"""Every class of address that is not the public internet is refused, however it is written."""

from __future__ import annotations

import pytest

from dreamctl.addresses import private, refusal, unwrapped
from dreamctl.wire import resolve

PUBLIC = ("93.184.216.34", "8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:2800:220:1::1", "2a00:1450::1")
PRIVATE = (
    "127.0.0.1", "127.255.255.254", "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.9",
    "100.64.0.1", "::1", "fc00::1", "fd12:3456::1", "::ffff:127.0.0.1", "::ffff:192.168.1.1",
)  # fmt: skip
NEVER = (
    "169.254.169.254", "169.254.0.1", "100.100.100.200", "fd00:ec2::254",  # metadata services
    "0.0.0.0", "0.1.2.3", "192.0.0.8", "192.0.0.192", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.19.255.255",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::ffff:169.254.169.254", "::ffff:0.0.0.0", "::127.0.0.1", "::8.8.8.8",  # IPv4-compatible
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::808:808", "64:ff9b:1::1", "100::1",
    "2001::1", "2001:0:7f00:1::", "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::",
    "2002:808:808::1", "3fff::1", "4000::1", "5f00::1", "fe80::1", "fe80::1%lo", "fec0::1", "feff::1", "ff02::1",
    "ff0e::1",
)  # fmt: skip


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are_allowed(text: str) -> None:
    assert refusal(unwrapped(text)) is None
    assert private(unwrapped(text)) is None


@pytest.mark.parametrize("text", PRIVATE)
def test_private_addresses_need_the_user_s_word(text: str) -> None:
    assert refusal(unwrapped(text)), text
    assert refusal(unwrapped(text), allow_private=True) is None


@pytest.mark.parametrize("text", NEVER)
def test_special_addresses_are_never_allowed(text: str) -> None:
    assert refusal(unwrapped(text)), text
    assert refusal(unwrapped(text), allow_private=True), text


def test_a_public_address_wrapped_in_ipv6_is_that_address() -> None:
    assert str(unwrapped("::ffff:8.8.8.8")) == "8.8.8.8"
    assert refusal(unwrapped("::ffff:8.8.8.8")) is None


@pytest.mark.parametrize(
    "host", ["127.1", "0177.0.0.1", "2130706433", "0x7f.1", "0x7f000001", "017700000001", "localhost", "0", "::1"]
)
def test_spellings_that_the_system_s_resolver_takes_for_this_computer(host: str) -> None:
    found = [unwrapped(text) for text in resolve(host, 80)]
    assert found and all(refusal(address) for address in found)
