"""Addresses and numbers of devices: parsed, and counters, versions and loopback are refused.

Source of the vetoes: what stock recognizers report on raw system logs (dotted versions, object identifiers, `uid=0`).
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from privacy.recognizers.spec import KEY, LEFT, RIGHT, SEP, Candidate, Recognizer, compiled, luhn

_QUAD = r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}"
_VERSION_WORDS = ("version", "ver", "release", "firmware", "build", "oid", "rev", "v")
_VERSION_ENDS = frozenset(end for word in _VERSION_WORDS for end in (word[-1], word[-1].upper()))
_PRODUCT = compiled(r"(?<![0-9A-Za-z./-])[A-Za-z][A-Za-z-]{1,30}/\Z")
# Reporting bodies whose codes open a TAC in use (GSMA TS.06): BABT, GSMA, CTIA, TÜV, MSAI, TAF and the older national ones.
_TAC = frozenset({"01", "10", "30", "33", "35", "44", "45", "49", "50", "51", "52", "53", "54", "86", "91", "98", "99"})


def _ipv4(found: Candidate) -> float:
    return 0.95 if _names_machine(found.text[found.start : found.end]) and not _versioned(found) else 0.0


@lru_cache(maxsize=4096)
def _names_machine(quad: str) -> bool:
    octets = quad.split(".")
    first, second, third, fourth = map(int, octets)
    if first > 255 or second > 255 or third > 255 or fourth > 255:
        return False
    if (quad[0] == "0" or ".0" in quad) and any(len(octet) > 1 and octet[0] == "0" for octet in octets):
        return False
    # 0, 127, 224 to 239 and the last: this host, a group or everybody names no machine of a person
    return first not in (0, 127) and not 224 <= first <= 239 and quad != "255.255.255.255"


def _versioned(found: Candidate) -> bool:
    """Whether this is a version: after the word for one, or after a product (`Chrome/120.0.0.0`, not `/10.0.0.1:80`)."""
    before = found.text[max(0, found.start - 24) : found.start]
    if before[-1:] == "/":
        product = _PRODUCT.search(before)
        return product is not None and (product.group()[0].isupper() or not found.log) and found.after(1) != ":"
    word = before.rstrip(" :=\"'")
    if word[-1:] not in _VERSION_ENDS:
        return False
    word = word.lower()
    for cue in _VERSION_WORDS:
        if word.endswith(cue):
            return not word[-len(cue) - 1 : -len(cue)].isalpha()
    return False


def _ipv6(found: Candidate) -> float:
    text = found.value.split("%")[0]
    if text.count(":") < 2 or not any(c in "0123456789" for c in text):
        return 0.0
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return 0.0
    return 0.0 if address.is_loopback or address.is_unspecified else 0.95


def _mac(found: Candidate) -> float:
    digits = found.value.replace("-", ":").lower()
    return 0.0 if digits in ("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff") else 0.95


def _imei_cued(found: Candidate) -> float:
    return 0.9 if luhn(found.digits) else 0.6  # the cue word alone is enough: people mistype


def _imei(found: Candidate) -> float:
    digits = found.digits
    if digits[:2] not in _TAC or not luhn(digits) or len(set(digits)) == 1:
        return 0.0
    return 0.0 if found.log and (found.counted() or found.joined()) else 0.8


NETWORK: tuple[Recognizer, ...] = (
    Recognizer(
        "ipv4",
        "IP_ADDRESS",
        compiled(r"(?<![0-9A-Za-z.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9A-Za-z]|\.[0-9])"),
        0.95,
        "no checksum; parsed as an address, versions and loopback refused",
        check=_ipv4,
        words=(".",),
        digits=4,
        version="2",
    ),
    Recognizer(
        "ipv6",
        "IP_ADDRESS",
        compiled(
            r"(?<![0-9A-Za-z:.])(?:(?:[0-9a-f]{1,4}:){6}(?:[0-9a-f]{1,4}:[0-9a-f]{1,4}|" + _QUAD + r")"
            r"|(?:[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){0,6})?::(?:[0-9a-f]{1,4}:){0,6}(?:" + _QUAD + r"|[0-9a-f]{1,4})?)"
            r"(?:%[0-9a-z]{1,15})?(?![0-9A-Za-z:])"
        ),
        0.95,
        "no checksum; parsed as an address",
        check=_ipv6,
        words=(":",),
        digits=1,
    ),
    Recognizer(
        "mac",
        "MAC_ADDRESS",
        compiled(
            r"(?<![0-9A-Za-z:-])(?:[0-9a-f]{2}(?::[0-9a-f]{2}){5}|[0-9a-f]{2}(?:-[0-9a-f]{2}){5}"
            r"|[0-9a-f]{4}\.[0-9a-f]{4}\.[0-9a-f]{4})(?![0-9A-Za-z:-])"
        ),
        0.95,
        "no checksum; six octets in one of the three written forms",
        check=_mac,
        words=(":", "-", "."),
    ),
    Recognizer(
        "mac_key",
        "MAC_ADDRESS",
        compiled(KEY + r"(?:mac|bssid|hwaddr|ether|wlan|bluetooth)(?:[_ -]?addr(?:ess)?)?" + SEP + r"([0-9a-f]{12})" + RIGHT),
        0.9,
        "no checksum; twelve hexadecimal digits after the key",
        group=1,
        check=_mac,
        words=("mac", "bssid", "hwaddr", "ether", "wlan", "bluetooth"),
    ),
    Recognizer(
        "imei_cue",
        "IMEI",
        compiled(LEFT + r"imei[^0-9\n]{0,12}([0-9]{2}[ -]?[0-9]{6}[ -]?[0-9]{6}[ -]?[0-9])(?:[0-9])?" + RIGHT),
        0.6,
        "Luhn raises the score; the cue word decides",
        group=1,
        check=_imei_cued,
        words=("imei",),
        digits=15,
        version="2",
    ),
    Recognizer(
        "imei",
        "IMEI",
        compiled(r"(?<![0-9A-Za-z_.-])(?:[0-9]{15}|[0-9]{2}([ -])[0-9]{6}\1[0-9]{6}\1[0-9])(?![0-9A-Za-z_-]|\.[0-9])"),
        0.8,
        "Luhn and a TAC of a reporting body that exists",
        check=_imei,
        digits=15,
    ),
)
