"""Where people live: street addresses, post boxes and codes by their written form or a cue word (English, some European).

No address has a checksum: house number and street word, a cue, or a closed list (states, postcodes) decide.
Not covered: an address without a number, and one in another script (`recognizers.cn` has the Chinese ones).
"""

from __future__ import annotations

from privacy.recognizers.spec import LEFT, RIGHT, Candidate, Recognizer, compiled
from privacy.recognizers.view import word_set

_LETTER = r"A-Za-z\u00c0-\u024f"
_SPLIT = compiled(r"[" + _LETTER + r"'’.-]+")
_SUFFIX = (
    r"(?:street|str|st|avenue|ave|av|road|rd|boulevard|blvd|lane|ln|drive|dr"
    r"|court|ct|place|pl|square|sq|terrace|ter|way|highway|hwy|parkway|pkwy"
    r"|circle|cir|crescent|cres|trail|trl|alley|close|row|plaza|nagar"
    r"|colony|heights|gardens|grove|broadway|main|turnpike|pike|loop|bypass)"
)
_UNIT = r"(?:,?\s{1,2}(?:apt|apartment|suite|ste|unit|floor|fl|room|no|#)\.?\s?#?[0-9A-Za-z-]{1,6}(?![0-9A-Za-z]))?"
_STATES = "A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|P[AR]|RI|S[CD]|T[NX]|UT|V[AT]|W[AIVY]"
_CITY = (
    r"(?:,?\s{1,2}(?:in\s)?["
    + _LETTER
    + r"]["
    + _LETTER
    + r".'-]{1,20}(?:\s["
    + _LETTER
    + r"]["
    + _LETTER
    + r".'-]{1,20}){0,2},?\s{1,2}"
    r"(?:(?-i:"
    + _STATES
    + r")(?![0-9A-Za-z])(?:,?\s{1,2}[0-9]{5}(?:-[0-9]{4})?)?|[a-z]{2}\s{1,2}[0-9]{5}(?:-[0-9]{4})?)(?![0-9A-Za-z]))?"
)
_NOT_STREET = word_set(
    "day days hour hours minute minutes week weeks month months year years time times item items dollar dollars percent am pm "
    "more people orders order is was on in by my from and of per usd eur gb mb ms"
)


_SENTENCE = word_set(
    "my i is it am are was please thanks thank can could would because"
    " but so that this you your want need have has charge charged "
    "card account ssn order payment amount dollars"
)


def _street(found: Candidate) -> float:
    words = [w.lower() for w in _SPLIT.findall(found.value)[:4]]
    return 0.0 if words and (words[0] in _NOT_STREET or (len(words) > 1 and words[1] in _NOT_STREET)) else 0.75


_CLAUSE = compiled(
    r"\s(?:and (?:my|the|i|please)|but|because|please|so|thanks|thank|my|i|can|could|is|not)(?:\s|\Z)|[.;!?](?:\s|$)|\n"
    r"|[\"'](?=\s{0,2}(?:[,:;}\])]|\Z))|[{}]"  # where a quoted value or a document of fields ends
)
_QUOTE_END = {sign: compiled(sign + r"(?![0-9A-Za-z])") for sign in "\"'"}


def _trim_cued_address(found: Candidate) -> tuple[int, int] | None:
    """Up to the next clause, and not beyond the quote that closes the value; what holds no digit is not an address."""
    clause = _CLAUSE.search(found.text, found.start, found.end)
    end = clause.start() if clause else found.end
    quote = found.text[found.start - 1 : found.start]
    if quote in _QUOTE_END and (closing := _QUOTE_END[quote].search(found.text, found.start, end)):
        end = closing.start()
    value = found.text[found.start : end].rstrip(" ,.")
    return (found.start, found.start + len(value)) if any(c in "0123456789" for c in value) and " " in value else None


def _trim_address_turn(found: Candidate) -> tuple[int, int] | None:
    """Up to the first word that belongs to a sentence, not to a place."""
    for match in compiled(r"[A-Za-z']+").finditer(found.text, found.start, found.end):
        if match.group().lower() in _SENTENCE:
            end = match.start()
            return (found.start, end) if end - found.start > 8 else None
    return found.start, found.end


_ITALIAN = compiled(r"via (?=([^0-9]{2,60}))")
_NO_STREET = word_set(
    "api app bluetooth bus channel chat courier email eth exit ferry fiber flight gate highway http https interface ip ipv lan"
    " level link mail method option phone plan platform port proxy route router server sftp skype sms socket ssh step stop tcp"
    " ticket train tun tunnel udp usb version vlan vpn web wifi wlan zoom"
)
_LIVES_THERE = compiled(r"(?:address|live|lives|living|home|ship|deliver|indirizzo|abit)")


def _european(found: Candidate) -> float:
    """`via` is an Italian street and an English preposition: what comes over `eth0`, `port 80` or a train is no address."""
    street = _ITALIAN.match(found.value)
    if street is None:
        return 0.6
    name = street[1].strip(" ,.").lower().split()
    glued = street[1][-1:].isalpha()
    if glued or not name or not _NO_STREET.isdisjoint(name):
        return 0.0
    named = found.value[4:5].isupper() or len(name) > 1 or _LIVES_THERE.search(found.before(80)) is not None
    return 0.6 if named else 0.0


ADDRESSES: tuple[Recognizer, ...] = (
    Recognizer(
        "street_address",
        "ADDRESS",
        compiled(
            r"(?<![0-9A-Za-z$€£.,/-])[0-9]{1,6}[A-Za-z]?(?:[-/][0-9]{1,5})?,?\s{1,2}(?:(?:["
            + _LETTER
            + r"0-9]["
            + _LETTER
            + r"0-9.'’-]{0,20}\s{1,2}){1,4}?|(?=broadway|main))"
            + _SUFFIX
            + r"(?!["
            + _LETTER
            + r"0-9])\.?"
            + _UNIT
            + _CITY
        ),
        0.75,
        "no checksum; house number, street name and street word decide",
        check=_street,
        digits=1,
        conversation_only=True,
    ),
    Recognizer(
        "address_turn",
        "ADDRESS",
        compiled(
            r"\A\W{0,3}(?:(?:yes|ok|okay|sure|its|it's|it is|no|is|new"
            r"|address|the|my|number|door|house|flat|room)[ ,.:]{1,3}){0,6}"
            r"([0-9]{1,6}[A-Za-z]?(?:[-/][0-9]{1,5})?,? (?:["
            + _LETTER
            + r"0-9.'’#-]{1,20},? ){1,7}?"
            + _SUFFIX
            + r"(?!["
            + _LETTER
            + r"0-9])(?:,? ["
            + _LETTER
            + r"0-9.'’#-]{1,20}){0,7})"
        ),
        0.6,
        "no checksum; a turn that opens with a house number and holds a street word is an address as far as it names places",
        group=1,
        trim=_trim_address_turn,
        check=_street,
        digits=1,
        conversation_only=True,
    ),
    Recognizer(
        "european_address",
        "ADDRESS",
        compiled(
            LEFT + r"(?:[" + _LETTER + r"]{3,25}(?:straße|strasse|str\.|gasse|weg|platz|allee|gatan|vej|straat|laan|katu)"
            r"|(?:rua|calle|via|rue|avenida|av\.|plaza|piazza|corso|avenue|ulica|ul\.) (?:["
            + _LETTER
            + r".'’-]{2,20} ?){1,4}?),? ?[0-9]{1,5}[a-z]?"
            + RIGHT
        ),
        0.6,
        "no checksum; street word and house number decide",
        check=_european,
        digits=1,
        conversation_only=True,
        version="2",
    ),
    Recognizer(
        "post_box",
        "ADDRESS",
        compiled(LEFT + r"(?:p\.?\s?o\.?\s?box|post(?:al)? box|psc|unit)\s{1,2}[0-9]{2,6}(?:,? box [0-9]{1,6})?" + _CITY),
        0.65,
        "no checksum; the words for a post box decide",
        words=("box", "psc", "unit"),
        digits=2,
        conversation_only=True,
    ),
    Recognizer(
        "address_cue",
        "ADDRESS",
        compiled(
            LEFT + r"(?:(?:home|mailing|billing|shipping|delivery|street|new|current"
            r"|old|correct|permanent|residential|my|your|the) address|address)"
            r"(?:\s{1,2}(?:is|was|to|as|should be|will be|of|with|at|on file is"
            r"|is now))?(?:\s{1,2}now)?[\s:=\"']{1,4}(?![0-9]{1,3}\.[0-9])([0-9A-Za-z#\u00c0-\u024f][^\n<>=\ue000]{4,110})"
        ),
        0.62,
        "no checksum; the cue word decides, and a house number must be in it",
        group=1,
        trim=_trim_cued_address,
        words=("address",),
        digits=1,
        conversation_only=True,
        version="2",
    ),
    Recognizer(
        "city_state_zip",
        "LOCATION",
        compiled(
            r"(?<!["
            + _LETTER
            + r"0-9])(?-i:(?:[A-Z]["
            + _LETTER
            + r".'-]{1,20} ){0,2}[A-Z]["
            + _LETTER
            + r".'-]{1,20},? (?:"
            + _STATES
            + r")),? [0-9]{5}(?:-[0-9]{4})?"
            + RIGHT
        ),
        0.7,
        "no checksum; city, state of the closed list and zip code",
        digits=5,
    ),
    Recognizer(
        "zip_cue",
        "LOCATION",
        compiled(
            LEFT + r"(?:zip(?: ?code)?|post(?:al)? ?code)(?:\s{1,2}is)?[\s:=]{1,3}([0-9A-Z]{2,5}(?:[ -][0-9A-Z]{3,4})?)" + RIGHT
        ),
        0.7,
        "no checksum; the cue word decides",
        group=1,
        check=lambda found: 0.7 if any(c in "0123456789" for c in found.value) else 0.0,
        words=("zip", "post"),
        digits=1,
    ),
    Recognizer(
        "uk_postcode",
        "LOCATION",
        compiled(r"(?<![0-9A-Za-z])[A-Z]{1,2}[0-9][0-9A-Z]? [0-9][ABD-HJLNP-UW-Z]{2}(?![0-9A-Za-z])", ignore_case=False),
        0.6,
        "no checksum; the published shape of a postcode, in conversation only",
        digits=2,
        conversation_only=True,
    ),
)
