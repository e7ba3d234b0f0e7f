"""Network identifiers and account names of machines: addresses are parsed, and counters, versions and loopback are refused.

Source of the vetoes: what stock recognizers report on raw system logs (dotted versions, object identifiers, `uid=0`).
"""

from __future__ import annotations

import ipaddress

from privacy.recognizers.spec import LEFT, RIGHT, Candidate, Recognizer, compiled, luhn
from privacy.recognizers.view import word_set

_VERSION_CUE = compiled(r"(?:(?<![a-z])(?:v|version|ver|release|firmware|build|oid)|[a-z]/)[ :=]{0,3}$")
_SYSTEM_ACCOUNTS = word_set(
    """
    root admin administrator system daemon nobody guest test user users unknown null none undefined anonymous www-data
    postgres mysql oracle nginx apache service localsystem default public shared all true false yes no ubuntu runner invalid
    name id anyone someone me you my his her their authenticated missing required empty the a an is was not
    """
)


def _ipv4(found: Candidate) -> float:
    try:
        address = ipaddress.IPv4Address(found.value)
    except ValueError:
        return 0.0
    if address.is_loopback or address.is_unspecified or address.is_multicast or found.value == "255.255.255.255":
        return 0.0  # names no machine of a person
    return 0.0 if _VERSION_CUE.search(found.before(16)) else 0.95


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


def _imei(found: Candidate) -> float:
    return 0.9 if luhn(found.digits) else 0.6  # the cue word alone is enough: people mistype


def _username(found: Candidate) -> float:
    value = found.value.strip(".").lower()
    if found.after(1) == "=":
        return 0.0  # the value is empty and this is the next key
    if value in _SYSTEM_ACCOUNTS or not any(c.isalnum() for c in value):
        return 0.0
    return 0.0 if value.isdigit() and len(value) < 4 else 0.8


def _prose_username(found: Candidate) -> float:
    return _username(found) if any(c in "0123456789_.-" for c in found.value.strip(".")) else 0.0


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
    ),
    Recognizer(
        "ipv6",
        "IP_ADDRESS",
        compiled(
            r"(?<![0-9A-Za-z:.])(?:[0-9a-f]{1,4}:{1,2}|::){1,8}(?:[0-9a-f]{1,4}"
            r"|[0-9]{1,3}(?:\.[0-9]{1,3}){3})?(?:%[0-9a-z]{1,8})?(?![0-9A-Za-z:])"
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
        "imei_cue",
        "IMEI",
        compiled(LEFT + r"imei[^0-9\n]{0,12}([0-9]{2}[ -]?[0-9]{6}[ -]?[0-9]{6}[ -]?[0-9])" + RIGHT),
        0.6,
        "Luhn raises the score; the cue word decides",
        group=1,
        check=_imei,
        words=("imei",),
        digits=15,
    ),
    Recognizer(
        "username_key",
        "USERNAME",
        compiled(
            r"(?<![0-9A-Za-z])(?:user(?:[_ -]?(?:name|id))?|login(?:[_ -]?name)?"
            r"|logname|ruser|uname|screen[_ ]?name|handle)[\"']?\s{0,2}[=:]\s{0,2}[\"']?"
            r"([0-9A-Za-z_.@+\\-]{2,64})"
        ),
        0.8,
        "no checksum: any string can be an account name; the key decides, system accounts are refused",
        group=1,
        check=_username,
        words=("user", "log", "uname", "name", "handle"),
    ),
    Recognizer(
        "username_session",
        "USERNAME",
        compiled(
            LEFT + r"(?:(?:invalid|for|by|from|as|of) user|(?:password|publickey"
            r"|keyboard-interactive\S{0,8}|session (?:opened|closed)) for(?: invalid)?(?: user)?"
            r"|su to|authenticated as|logged in as"
            r"|input_userauth_request: invalid user)\s{1,2}[\"']?([0-9A-Za-z_][0-9A-Za-z_.@-]{1,40})"
        ),
        0.8,
        "no checksum; the phrase of the session log decides",
        group=1,
        check=_username,
        words=(" user", " for ", " as ", "su to"),
    ),
    Recognizer(
        "username_prose",
        "USERNAME",
        compiled(
            LEFT + r"(?:user ?name|user ?id|login(?: name| id)?|screen name"
            r"|handle)\s{1,2}(?:is|was)\s{1,2}[\"']?([0-9A-Za-z_][0-9A-Za-z_.-]{2,40})"
        ),
        0.7,
        "no checksum; cue words, and the value must not be an ordinary word",
        group=1,
        check=_prose_username,
        words=("user", "login", "name", "handle"),
    ),
    Recognizer(
        "home_directory",
        "USERNAME",
        compiled(r"(?:/home/|/Users/|[\\/]Users[\\/]{1,2}|/export/home/|/var/mail/)([0-9A-Za-z_][0-9A-Za-z_.-]{1,40})"),
        0.8,
        "no checksum; the folder above decides",
        group=1,
        check=_username,
        words=("home", "users", "/mail"),
    ),
    Recognizer(
        "url_user",
        "USERNAME",
        compiled(r"://([^\s/:@<>\"']{1,64})(?::[^\s/@<>\"']{0,128})?@"),
        0.97,
        "no checksum; userinfo of a URL (RFC 3986 section 3.2.1)",
        group=1,
        words=("://",),
    ),
)
