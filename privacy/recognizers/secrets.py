"""Credentials: whatever opens a door is a secret, whether or not it names a person.

Published token formats are matched by prefix and length; JSON web tokens are decoded; free-form values need a cue word.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections import Counter

from privacy.recognizers.spec import LEFT, RIGHT, Candidate, Recognizer, compiled
from privacy.recognizers.view import word_set

_NOT_A_PASSWORD = word_set(
    """
    null none nil true false yes no unknown required incorrect invalid wrong expired missing empty changed reset failed failure
    protected hidden redacted masked hash hashed field error not ok okay correct weak strong too the my your a an is was for and
    password passwd account please need help link page login email string text optional
    """
)


def _entropy(text: str) -> float:
    """Shannon entropy of the characters, in bits per character."""
    total = len(text)
    return -sum(n / total * math.log2(n / total) for n in Counter(text).values())


def _jwt(found: Candidate) -> float:
    head = found.value.split(".", 1)[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return 0.0
    return 0.99 if isinstance(header, dict) and "alg" in header else 0.0


def _password_key(found: Candidate) -> float:
    value = found.value.strip(".*").lower()
    return 0.0 if len(value) < 2 or value in _NOT_A_PASSWORD else 0.88


def _password_prose(found: Candidate) -> float:
    """After "password is …" ordinary words follow as often as passwords: a digit or an inner symbol makes the difference."""
    value = found.value.rstrip(".!?")
    symbol = any(not c.isalnum() and c not in "'’-" for c in value)
    return 0.8 if (symbol or any(c.isdigit() for c in value)) and value.lower() not in _NOT_A_PASSWORD else 0.0


def _secret_key(found: Candidate) -> float:
    value = found.value
    if value.lower() in _NOT_A_PASSWORD or _entropy(value) < 2.5:
        return 0.0
    has_digit = any(c.isdigit() for c in value)
    mixed = value.lower() != value and value.upper() != value
    return 0.88 if has_digit or (mixed and len(value) >= 16) else 0.0


def _bearer(found: Candidate) -> float:
    return 0.92 if _entropy(found.value) >= 2.5 else 0.0


def _token(name: str, pattern: str, *words: str) -> Recognizer:
    return Recognizer(
        name,
        "SECRET",
        compiled(LEFT + pattern + RIGHT, ignore_case=False),
        0.97,
        "no public checksum; the issuer's fixed prefix, alphabet and length decide",
        words=words,
    )


SECRETS: tuple[Recognizer, ...] = (
    _token("aws_access_key", r"(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}", "akia", "asia", "abia", "acca"),
    _token("github_token", r"(?:gh[pousr]_[0-9A-Za-z]{36,251}|github_pat_[0-9A-Za-z_]{22,255})", "gh", "github_pat_"),
    _token("gitlab_token", r"gl(?:pat|dt|rt|cbt|ptt)-[0-9A-Za-z_-]{20,64}", "gl"),
    _token("slack_token", r"xox[abeoprs]-[0-9A-Za-z-]{10,200}", "xox"),
    _token("stripe_key", r"(?:[srp]k|whsec)_(?:live_|test_)?[0-9A-Za-z]{16,200}", "k_live_", "k_test_", "whsec_"),
    _token("google_key", r"AIza[0-9A-Za-z_-]{35}", "aiza"),
    _token("llm_key", r"sk-(?:ant-|proj-)?[0-9A-Za-z_-]{20,200}", "sk-"),
    _token(
        "package_token", r"(?:npm_[0-9A-Za-z]{36}|pypi-[0-9A-Za-z_-]{50,300}|hf_[0-9A-Za-z]{30,60})", "npm_", "pypi-", "hf_"
    ),
    _token("sendgrid_key", r"SG\.[0-9A-Za-z_-]{22}\.[0-9A-Za-z_-]{43}", "sg."),
    Recognizer(
        "jwt",
        "SECRET",
        compiled(LEFT + r"eyJ[0-9A-Za-z_-]{8,2000}\.[0-9A-Za-z_-]{4,4000}(?:\.[0-9A-Za-z_-]{0,1000})?", ignore_case=False),
        0.99,
        "no checksum without the key; the header is decoded and must name an algorithm",
        check=_jwt,
        words=("eyj",),
    ),
    Recognizer(
        "private_key",
        "SECRET",
        compiled(
            r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----"
            r"(?:[\sA-Za-z0-9+/=:,.\\-]{0,8000}?-----END [A-Z ]{0,30}PRIVATE KEY-----|[A-Za-z0-9+/=\\\r\n]{0,8000})",
            ignore_case=False,
        ),
        0.99,
        "no checksum; the block's own header decides, to its end line or as far as base64 goes",
        words=("private key",),
    ),
    Recognizer(
        "bearer",
        "SECRET",
        compiled(LEFT + r"(?:bearer|basic|token)\s{1,2}([0-9A-Za-z_.~+/=-]{12,4000})"),
        0.92,
        "no checksum; the authorization scheme decides, low-entropy words are refused",
        group=1,
        check=lambda found: _bearer(found) if any(c.isdigit() for c in found.value) else 0.0,
        words=("bearer ", "basic ", "token "),
    ),
    Recognizer(
        "url_password",
        "PASSWORD",
        compiled(r"://[^\s/:@<>\"']{0,64}:([^\s/@<>\"']{1,128})@"),
        0.98,
        "no checksum; userinfo of a URL (RFC 3986 section 3.2.1)",
        group=1,
        words=("://",),
    ),
    Recognizer(
        "password_key",
        "PASSWORD",
        compiled(
            r"(?<![A-Za-z])(?:pass(?:word|wd|phrase|code)?|pwd|passwort"
            r"|contraseña)(?:_[a-z]{1,10})?[\"']?\s{0,2}[=:]\s{0,2}[\"']?([^\s\"',;&<>\ue000]{3,128})"
        ),
        0.88,
        "no checksum: a password is free text; the key decides, states such as `incorrect` are refused",
        group=1,
        check=_password_key,
        words=("pass", "pwd", "contra"),
    ),
    Recognizer(
        "password_prose",
        "PASSWORD",
        compiled(
            LEFT + r"(?:pass(?:word|phrase|code)|pwd|pin(?: code| number)?)\s{1,2}(?:is"
            r"|was|to|=|:)\s{0,2}[\"']?([^\s\"',;<>\ue000]{4,64})"
        ),
        0.8,
        "no checksum; cue words, and the value must not be an ordinary word",
        group=1,
        check=_password_prose,
        words=("pass", "pwd", "pin"),
    ),
    Recognizer(
        "one_time_code",
        "SECRET",
        compiled(
            LEFT + r"(?:otp|one[- ]time (?:code|password|pin)|(?:verification|security"
            r"|confirmation|auth(?:entication)?|2fa|login) code|cvv2?|cvc2?|csc)"
            r"(?:\s{1,2}(?:is|was|number|code))?[\s:=#]{0,3}([0-9]{3,8}|[0-9]{3} [0-9]{3})" + RIGHT
        ),
        0.85,
        "no checksum; cue words decide",
        group=1,
        words=("otp", "code", "one", "cvv", "cvc", "csc"),
        digits=3,
    ),
    Recognizer(
        "secret_key",
        "SECRET",
        compiled(
            r"(?<![A-Za-z])(?:[a-z0-9]{1,12}[_-]){0,2}(?:api[_ -]?key|secret(?:[_ -]?(?:access[_ -]?)?key)?"
            r"|access[_ -]?key|private[_ -]?key|token|session(?:[_ -]?id)?"
            r"|jsessionid|sid|csrf|cookie|credential|signature"
            r"|nonce)[\"']?\s{0,2}[=:]\s{0,2}[\"']?([0-9A-Za-z+/_.=~%-]{8,4000})"
        ),
        0.88,
        "no checksum; the key decides, and the value must have the entropy of a random string",
        group=1,
        check=_secret_key,
        words=("key", "secret", "token", "session", "sid", "csrf", "cookie", "credential", "signature", "nonce"),
    ),
)
