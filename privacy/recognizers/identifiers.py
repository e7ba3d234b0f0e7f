"""Mail addresses, as written and as spelled out."""

from __future__ import annotations

from privacy.recognizers.spec import LEFT, RIGHT, Candidate, Recognizer, compiled

_SPELLED_END = compiled(r"(?:dot[\])]?\s?|\.)(?:com|org|net|edu|gov|io|co|cn|uk|de|fr|in|eu|info|biz|me|app|dev)\Z")


_PROVIDER = compiled(r"(?:www\.)?(?:gmail|hotmail|yahoo|outlook|redd?if?fmail|icloud|ymail|protonmail|gmx)\.?[a-z. ]{2,6}")
_USERINFO = compiled(r"://[^\s/@]{0,100}\Z")


def _email(found: Candidate) -> float:
    """What stands between `://` and `@` is the user and password of a URL, and its host is no mail domain."""
    return 0.0 if _USERINFO.search(found.before(104)) else 0.96


def _bare(found: Candidate) -> float:
    """The name of the provider alone, or its web site, is no address."""
    before = found.before(12)
    site = before.endswith(("://", "www.", "@"))
    return 0.0 if site or _PROVIDER.fullmatch(found.value) else 0.6


def _spelled(found: Candidate) -> float:
    return 0.6 if _SPELLED_END.search(found.value) else 0.0


IDENTIFIERS: tuple[Recognizer, ...] = (
    Recognizer(
        "email",
        "EMAIL_ADDRESS",
        compiled(
            r"(?<![0-9A-Za-z\u00c0-\u024f._%+-])[0-9A-Za-z\u00c0-\u024f._%+-]{1,100}@"
            r"(?:[0-9A-Za-z\u00c0-\u024f-]{1,63}\.){1,8}[A-Za-z]{2,24}" + RIGHT
        ),
        0.96,
        "no checksum; RFC 5321 shape with a top-level domain",
        check=_email,
        words=("@",),
        version="2",
    ),
    Recognizer(
        "email_spelled",
        "EMAIL_ADDRESS",
        compiled(
            LEFT + r"[0-9A-Za-z._%+-]{1,64}\s?(?:[\[(]at[\])]"
            r"| at )\s?[0-9A-Za-z-]{1,63}(?:\s?(?:[\[(]dot[\])]| dot |\.)\s?[0-9A-Za-z-]{2,24}){1,4}" + RIGHT
        ),
        0.6,
        "no checksum; at and dot spelled out",
        check=_spelled,
        words=(" at ", "[at]", "(at)"),
    ),
    Recognizer(
        "email_bare",
        "EMAIL_ADDRESS",
        compiled(
            LEFT + r"(?:(?!(?:is|id|ids|my|your|the|it|its|was|mail|email|e-mail|address|to|at|from|me|and"
            r"|or|on|in|a|an|of|with|for|please)\s)"
            r"[0-9A-Za-z._-]{2,30}\s){0,2}[0-9A-Za-z._-]{0,40}(?:gmail|hotmail|yahoo|outlook|redd?if?fmail|icloud|ymail|protonmail|gmx)"
            r"\s?(?:dot\s?|\.)?(?:com|net|org|de|cn|fr|in|co\.?\s?(?:in|uk|jp))" + RIGHT
        ),
        0.6,
        "no checksum; a mail provider and its top-level domain, the signs between lost",
        check=_bare,
        words=("mail", "yahoo", "outlook", "icloud", "gmx"),
        conversation_only=True,
    ),
)
