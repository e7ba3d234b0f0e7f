"""Credentials with a published form: prefix, alphabet and length of the issuer; JSON web tokens are decoded.

No public checksum exists for them (GitHub's and npm's are not documented for third parties): the fixed prefix decides.
Source: the issuers' documentation of their token formats.
"""

from __future__ import annotations

import base64
import binascii
import json

from privacy.recognizers.spec import LEFT, RIGHT, Candidate, Check, Recognizer, compiled

_REASON = "no public checksum; the issuer's fixed prefix, alphabet and length decide"


def _jwt(found: Candidate) -> float:
    head = found.value.split(".", 1)[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return 0.0
    return 0.99 if isinstance(header, dict) and ("alg" in header or "enc" in header) else 0.0


def _mixed(found: Candidate) -> float:
    """A random string has digits and letters; a word of a path has not."""
    value = found.value
    return 0.97 if any(c.isdigit() for c in value) and any(c.isalpha() for c in value) else 0.0


def _token(name: str, pattern: str, *words: str, group: int = 0, check: Check | None = None) -> Recognizer:
    return Recognizer(
        name,
        "SECRET",
        compiled(LEFT + pattern + RIGHT, ignore_case=False),
        0.97,
        _REASON,
        group=group,
        words=words,
        check=check,
    )


TOKENS: tuple[Recognizer, ...] = (
    _token("aws_access_key", r"(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}", "akia", "asia", "abia", "acca"),
    _token("github_token", r"(?:gh[pousr]_[0-9A-Za-z]{36,251}|github_pat_[0-9A-Za-z_]{22,255})", "gh", "github_pat_"),
    _token("gitlab_token", r"gl(?:pat|dt|rt|cbt|ptt|ft|soat|imt|agent|oas)-[0-9A-Za-z_-]{20,64}", "gl"),
    _token("slack_token", r"(?:xox[abeoprs]|xapp)-[0-9A-Za-z-]{10,200}", "xox", "xapp"),
    _token("slack_hook", r"hooks\.slack\.com/(?:services|workflows)/(T[0-9A-Z]{6,12}/[0-9A-Za-z/]{8,80})", "slack", group=1),
    _token("discord_hook", r"discord(?:app)?\.com/api/webhooks/([0-9]{15,22}/[0-9A-Za-z_-]{40,90})", "discord", group=1),
    _token("stripe_key", r"(?:[srp]k_(?:live_|test_)?|whsec_)[0-9A-Za-z]{16,200}", "k_", "whsec_", check=_mixed),
    _token("google_key", r"AIza[0-9A-Za-z_-]{35}", "aiza"),
    _token(
        "google_oauth",
        r"(?:GOCSPX-[0-9A-Za-z_-]{20,40}|ya29\.[0-9A-Za-z_-]{20,400}"
        r"|1//0[0-9A-Za-z_-]{30,200})",
        "g",
        "ya29",
        "1//",
    ),
    _token("azure_client_secret", r"[0-9A-Za-z_~.-]{3}[78]Q~[0-9A-Za-z_~.-]{31,34}", "q~"),
    _token("llm_key", r"sk-(?:ant-|proj-|svcacct-|or-)?[0-9A-Za-z_-]{20,200}", "sk-", check=_mixed),
    _token(
        "package_token",
        r"(?:npm_[0-9A-Za-z]{36}|pypi-[0-9A-Za-z_-]{50,300}|hf_[0-9A-Za-z]{30,60}|rubygems_[0-9a-f]{48}"
        r"|dckr_pat_[0-9A-Za-z_-]{20,60})",
        "npm_",
        "pypi-",
        "hf_",
        "rubygems_",
        "dckr_pat_",
    ),
    _token("sendgrid_key", r"SG\.[0-9A-Za-z_-]{22}\.[0-9A-Za-z_-]{43}", "sg."),
    _token("twilio_key", r"(?:SK|AC)[0-9a-f]{32}", "sk", "ac", check=_mixed),
    _token(
        "mail_key",
        r"(?:key-[0-9a-f]{32}|[0-9a-f]{32}-us[0-9]{1,2}|xkeysib-[0-9a-f]{64}-[0-9A-Za-z]{16})",
        "key-",
        "-us",
        "xkeysib-",
    ),
    _token("telegram_token", r"[0-9]{8,10}:AA[0-9A-Za-z_-]{33}", ":aa"),
    _token(
        "shop_token",
        r"(?:shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}|sq0(?:atp|csp)-[0-9A-Za-z_-]{22,43}"
        r"|EAAA[0-9A-Za-z_-]{60})",
        "shp",
        "sq0",
        "eaaa",
    ),
    _token(
        "cloud_token",
        r"(?:dapi[0-9a-f]{32}|do[opr]_v1_[0-9a-f]{64}|dp\.pt\.[0-9A-Za-z]{40,44}|hvs\.[0-9A-Za-z_-]{20,120}"
        r"|glsa_[0-9A-Za-z]{32}_[0-9a-f]{8}|lin_api_[0-9A-Za-z]{40}|PMAK-[0-9a-f]{24}-[0-9a-f]{34}|nfp_[0-9A-Za-z]{36})",
        "dapi",
        "_v1_",
        "dp.pt.",
        "hvs.",
        "glsa_",
        "lin_api_",
        "pmak-",
        "nfp_",
    ),
    Recognizer(
        "jwt",
        "SECRET",
        compiled(LEFT + r"eyJ[0-9A-Za-z_-]{8,2000}\.[0-9A-Za-z_-]{4,4000}(?:\.[0-9A-Za-z_-]{0,1000}){0,3}", ignore_case=False),
        0.99,
        "no checksum without the key; the header is decoded and must name an algorithm",
        check=_jwt,
        words=("eyj",),
        version="2",
    ),
    Recognizer(
        "private_key",
        "SECRET",
        compiled(
            r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
            r"(?:[\sA-Za-z0-9+/=:,.\\-]{0,8000}?-----END [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
            r"|[A-Za-z0-9+/=\\\r\n]{0,8000})",
            ignore_case=False,
        ),
        0.99,
        "no checksum; the block's own header decides, to its end line or as far as base64 goes",
        words=("private key",),
        version="2",
    ),
)
