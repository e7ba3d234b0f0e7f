"""Credentials without a form of their own: passwords, keys and codes by their key, their scheme or a cue word.

Whatever opens a door is a secret, whether or not it names a person. Free-form values have no checksum: the key decides, states
("password: incorrect") are refused, and keys that also name counters ask for the entropy of a random string.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections import Counter
from itertools import pairwise

from privacy.recognizers.spec import KEY, LEFT, RIGHT, SEP, Candidate, Recognizer, compiled
from privacy.recognizers.view import word_set

_NOT_A_PASSWORD = word_set(
    """
    null none nil true false yes no unknown required incorrect invalid wrong expired missing empty changed reset failed failure
    protected hidden redacted masked hash hashed field error not ok okay correct weak strong too the my your a an is was for and
    password passwd account please need help link page login email string text optional authentication success successful
    accepted rejected denied update updated enabled disabled undefined prompt input verify verified mismatch
    """
)
# Strength of what must look random: a word list scores below, hexadecimal and base64 above.
_MIN_ENTROPY = 2.5


def _entropy(text: str) -> float:
    """Shannon entropy of the characters, in bits per character."""
    total = len(text)
    return -sum(n / total * math.log2(n / total) for n in Counter(text).values())


def _password_key(found: Candidate) -> float:
    value = found.value.strip(".*").lower()
    if len(value) < 2 or value in _NOT_A_PASSWORD or found.after(1) == "=":
        return 0.0
    return 0.88


def _password_prose(found: Candidate) -> float:
    """After "password is …" ordinary words follow as often: digits, symbols or inner capitals make the difference."""
    value = found.value.rstrip(".!?")
    symbol = any(not c.isalnum() and c not in "'’-" for c in value)
    camel = len(value) >= 8 and any(a.islower() and b.isupper() for a, b in pairwise(value))
    return 0.8 if (symbol or camel or any(c.isdigit() for c in value)) and value.lower() not in _NOT_A_PASSWORD else 0.0


def _secret_key(found: Candidate) -> float:
    value = found.value
    if value.lower() in _NOT_A_PASSWORD or value.lower().startswith("0x") or _entropy(value) < _MIN_ENTROPY:
        return 0.0  # a handle in hexadecimal counts sessions of a machine
    has_digit = any(c.isdigit() for c in value)
    mixed = value.lower() != value and value.upper() != value
    if found.log and value.isdigit():
        return 0.0
    return 0.88 if has_digit or (mixed and len(value) >= 16) else 0.0


def _bearer(found: Candidate) -> float:
    return 0.92 if any(c.isdigit() for c in found.value) and _entropy(found.value) >= _MIN_ENTROPY else 0.0


def _basic(found: Candidate) -> float:
    """Basic credentials are base64 of `name:password` (RFC 7617)."""
    value = found.value.rstrip("=")
    try:
        decoded = base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except (ValueError, binascii.Error):
        return 0.0
    return 0.95 if b":" in decoded and all(byte >= 32 for byte in decoded) else 0.0


def _last_part(found: Candidate) -> tuple[int, int] | None:
    """The password of `-u name:password` or `login attempt [name/password]`."""
    sign = ":" if ":" in found.value else "/"
    start = found.start + found.value.index(sign) + 1
    if found.text[start : start + 2] == "b'":
        start += 2
    return (start, found.end) if start < found.end else None


_KEY_WORDS = r"(?:pass(?:word|wd|phrase|code)?|pwd|pswd|passwort|contraseña|mot[_ ]?de[_ ]?passe|密码|口令)"
_VALUE = r"((?<=\")[^\"\n\ue000]{2,128}?(?=\\?\")|(?<=')[^'\n\ue000]{2,128}(?=')|(?<![\"'])[^\s\"',;&<>\ue000]{3,128})"

SECRETS: tuple[Recognizer, ...] = (
    Recognizer(
        "bearer",
        "SECRET",
        compiled(LEFT + r"(?:bearer|token|apikey)\s{1,2}([0-9A-Za-z_.~+/=-]{12,4000})"),
        0.92,
        "no checksum; the authorization scheme decides, low-entropy words are refused",
        group=1,
        check=_bearer,
        words=("bearer ", "token ", "apikey "),
        version="2",
    ),
    Recognizer(
        "basic_auth",
        "SECRET",
        compiled(LEFT + r"basic\s{1,2}([0-9A-Za-z+/]{4,1000}={0,2})(?![0-9A-Za-z+/=])"),
        0.95,
        "no checksum; base64 that decodes to a name and a password (RFC 7617)",
        group=1,
        check=_basic,
        words=("basic",),
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
        "user_password_pair",
        "PASSWORD",
        compiled(
            r"(?:(?<![0-9A-Za-z-])(?:-u|--user|--proxy-user|--creds)[ =][\"']?[0-9A-Za-z_.@-]{1,64}:([^\s\"'@]{3,128})"
            r"|(?<![0-9A-Za-z])login attempt \[[^\]/\s]{1,64}/(?:b')?([^\]'\s]{1,128})(?='?\]))"
        ),
        0.9,
        "no checksum; the place that curl and login traps give to a password",
        trim=_last_part,
        words=("-u", "--user", "--proxy-user", "--creds", "login attempt"),
    ),
    Recognizer(
        "url_token",
        "SECRET",
        compiled(
            r"(?<=[?&;#])(?:[a-z0-9]{1,16}[_.-]){0,3}(?:access[_-]?token|token|api[_-]?key|apikey|key|secret|sig"
            r"|signature|sas|auth"
            r"|code|session(?:id)?|sid|jwt|ticket|otp|password|pwd|hash|nonce|state|credential|invite"
            r"|reset)=([^\s&#\"'<>;]{6,4000})"
        ),
        0.9,
        "no checksum; a parameter of a URL that opens a door, with the entropy of a random string",
        group=1,
        check=_secret_key,
        words=("=",),
    ),
    Recognizer(
        "password_key",
        "PASSWORD",
        compiled(KEY + _KEY_WORDS + r"(?:[_-][a-z]{1,10})?" + SEP + _VALUE),
        0.88,
        "no checksum: a password is free text; the key decides, states such as `incorrect` are refused",
        group=1,
        check=_password_key,
        words=("pass", "pwd", "pswd", "contra", "密码", "口令"),
        version="2",
    ),
    Recognizer(
        "password_glued_key",
        "PASSWORD",
        compiled(
            r"(?<=[A-Za-z])(?:password|passwd|passphrase|pwd)[\"'\\]{0,3}\s{0,2}(?:=>|:="
            r"|[:=])\s{0,2}[\"'\\]{0,3}" + _VALUE
        ),
        0.86,
        "no checksum; a key that ends in the word for a password (PGPASSWORD, dbpassword)",
        group=1,
        check=_password_key,
        words=("password", "passwd", "passphrase", "pwd"),
    ),
    Recognizer(
        "password_option",
        "PASSWORD",
        compiled(
            r"(?:(?<![0-9A-Za-z])--?(?:password|passwd|pass|passphrase|pw)\s{1,2}|(?<![0-9A-Za-z])identified by "
            r"|(?<![0-9A-Za-z])sshpass -p ?)"
            r"(?:[\"'](?=[^\"'\n]{2,128}[\"']))?([^\s\"',;<>\ue000]{3,128})"
        ),
        0.85,
        "no checksum; the option of a command or the clause of SQL decides",
        group=1,
        check=_password_key,
        words=("-pass", "-pw", "identified by", "sshpass"),
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
        "password_bare_cue",
        "PASSWORD",
        compiled(
            LEFT + r"(?:with|using|new|old|current|temporary|temp|default|initial|its|the|my|your) (?:password"
            r"|passphrase|pass|pwd)\s{1,2}"
            r"[\"'`]?([^\s\"'`,;<>\ue000]{4,64})"
        ),
        0.75,
        "no checksum; cue words, and a digit or a symbol in the value",
        group=1,
        check=_password_prose,
        words=("pass", "pwd"),
    ),
    Recognizer(
        "one_time_code",
        "SECRET",
        compiled(
            KEY + r"(?:otp|one[- _]time[ _-]?(?:code|password|pin)|(?:verification|security|sms"
            r"|confirmation|auth(?:entication)?|2fa|mfa|login|pin)[ _-]?code|totp|cvv2?|cvc2?|csc)"
            r"(?:\s{1,2}(?:is|was|number|code))?[\s:=#\"'\\]{0,6}([0-9]{3,8}|[0-9]{3} [0-9]{3})" + RIGHT
        ),
        0.85,
        "no checksum; cue words decide",
        group=1,
        words=("otp", "code", "one", "cvv", "cvc", "csc"),
        digits=3,
        version="2",
    ),
    Recognizer(
        "secret_key",
        "SECRET",
        compiled(
            KEY + r"(?:(?:x[_-])?api[_ -]?(?:key|token|secret)|secret(?:[_ -]?(?:access[_ -]?)?key)?"
            r"|client[_ -]?secret|(?:account|master"
            r"|access|private|signing|encryption|shared|subscription|license|auth|webhook|service)[_ -]?(?:access[_ -]?)?key"
            r"|(?:access|refresh|auth|id|csrf|xsrf|session|bearer|sas|device|push|reset|security|user)?[_ -]?token"
            r"|session(?:[_ -]?(?:id"
            r"|key))?|(?:j|php|asp)?sess(?:ion)?id|connect\.sid|sid|csrf|cookie|credentials?|signature|nonce"
            r"|x-amz-(?:signature|credential)"
            r"|sharedaccesssignature|auth(?:orization)?|令牌|密钥)(?:[_ -]?(?:value|string))?"
            + SEP
            + r"(?:bearer |token )?([0-9A-Za-z+/_.=~%|-]{8,4000})"
        ),
        0.88,
        "no checksum; the key decides, and the value must have the entropy of a random string",
        group=1,
        check=_secret_key,
        words=(
            "key",
            "secret",
            "token",
            "sess",
            "sid",
            "csrf",
            "cookie",
            "credential",
            "signature",
            "nonce",
            "auth",
            "令牌",
            "密钥",
        ),
        version="2",
    ),
    Recognizer(
        "secret_glued_key",
        "SECRET",
        compiled(
            r"(?<=[A-Za-z])(?:secret|apikey|accesskey|secretkey|accountkey|token)[\"'\\]{0,3}\s{0,2}(?:=>|:="
            r"|[:=])\s{0,2}[\"'\\]{0,3}"
            r"([0-9A-Za-z+/_.=~%|-]{12,4000})"
        ),
        0.86,
        "no checksum; a key that ends in the word for a secret, and the entropy of a random string",
        group=1,
        check=_secret_key,
        words=("secret", "key", "token"),
    ),
)
