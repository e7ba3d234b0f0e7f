"""Identity papers and health numbers: social security, passports, driving licences, plates, NHS, NPI, medical records.

Numbers with a checksum are accepted on it together with a cue where the number is short; the others need the cue.
Source: SSA (areas never issued), ICAO 9303 (machine-readable zone), DVLA (driver number), NHS data dictionary (mod 11),
CMS (NPI: Luhn with the prefix 80840).
"""

from __future__ import annotations

from privacy.recognizers.spec import FILLER, KEY, LEFT, RIGHT, Candidate, Recognizer, compiled, luhn, weighted

_NO_SUM = "no checksum: every issuer numbers as it likes; "
_SSN_CUE = compiled(r"(?:ssn|s\.s\.n|social|soc\.? sec|tax.?id|tin)[^\n]{0,24}\Z")


def _ssn_possible(digits: str) -> bool:
    return not (digits[:3] in ("000", "666") or digits[0] == "9" or digits[3:5] == "00" or digits[5:] == "0000")


def _ssn(found: Candidate) -> float:
    if not _ssn_possible(found.digits):
        return 0.0
    spaced = "-" not in found.value
    return 0.0 if found.log and spaced and _SSN_CUE.search(found.before(40)) is None else 0.85


def _code(found: Candidate) -> float:
    """A cued code has at least four digits, or three beside letters."""
    digits = len(found.digits)
    return 0.75 if digits >= 4 or (digits >= 3 and digits < len(found.value)) else 0.0


def mrz_check_digit(field: str) -> str:
    """ICAO 9303 part 3: weights 7, 3, 1 over digits, letters as 10 to 35 and the filler as 0."""
    return str(sum((0 if c == "<" else int(c, 36)) * (7, 3, 1)[i % 3] for i, c in enumerate(field)) % 10)


def _mrz(found: Candidate) -> float:
    line = found.value
    fields = ((line[:9], line[9]), (line[13:19], line[19]), (line[21:27], line[27]))
    return 1.0 if all(mrz_check_digit(field) == digit for field, digit in fields) else 0.0


def _uk_driver(found: Candidate) -> float:
    """The driver number holds the date of birth: decade, month (plus 50 for women), day, year."""
    month, day = int(found.value[6:8]) % 50, int(found.value[8:10])
    return 0.9 if 1 <= month <= 12 and 1 <= day <= 31 else 0.0


def nhs_valid(digits: str) -> bool:
    """Mod 11 with weights 10 to 2; a check digit of 10 is never issued."""
    return len(digits) == 10 and len(set(digits)) > 1 and (11 - weighted(digits, range(10, 1, -1)) % 11) % 11 == int(digits[9])


def _nhs(found: Candidate) -> float:
    return 0.95 if nhs_valid(found.digits) else 0.0


def npi_valid(digits: str) -> bool:
    return len(digits) == 10 and digits[0] in "12" and luhn("80840" + digits)


def _npi(found: Candidate) -> float:
    return 0.95 if npi_valid(found.digits) else 0.0


def _plate(found: Candidate) -> float:
    value = found.value
    mixed = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
    return 0.7 if mixed and value.upper() == value and len(value) >= 4 else 0.0


DOCUMENTS: tuple[Recognizer, ...] = (
    Recognizer(
        "us_ssn",
        "US_SSN",
        compiled(r"(?<![0-9A-Za-z-])[0-9]{3}([ -])[0-9]{2}\1[0-9]{4}(?![0-9A-Za-z-])"),
        0.85,
        "no checksum exists; areas 000, 666 and 9xx, group 00 and serial 0000 were never issued",
        check=_ssn,
        digits=9,
        version="2",
    ),
    Recognizer(
        "us_ssn_cue",
        "US_SSN",
        compiled(
            KEY + r"(?:ssn|s\.s\.n\.?|ss ?#|social(?:[ _-]?security)?|soc(?:ial)? sec"
            r"|tax[ _-]?(?:payer[ _-]?)?id)(?:[^0-9\n\ue000]"
            r"|(?<![0-9])4(?= digits)){0,40}?([0-9](?:[ -]?[0-9]){2,9})" + RIGHT
        ),
        0.8,
        "no checksum exists; the cue word decides, so the last four digits count too",
        group=1,
        words=("ssn", "s.s.n", "ss#", "ss #", "soc", "tax"),
        digits=3,
        version="2",
    ),
    Recognizer(
        "passport_mrz",
        "PASSPORT_NUMBER",
        compiled(r"(?<![0-9A-Z<])[0-9A-Z<]{9}[0-9][A-Z<]{3}[0-9]{7}[MFX<][0-9]{7}[0-9A-Z<]{14}[0-9<][0-9](?![0-9A-Z<])", False),
        1.0,
        "ICAO 9303 check digits of number, date of birth and expiry",
        check=_mrz,
        digits=16,
    ),
    Recognizer(
        "passport_cue",
        "PASSPORT_NUMBER",
        compiled(KEY + r"(?:passport|travel document)" + FILLER + r"#?([A-Z]{0,3}[0-9][0-9A-Z]{4,12})" + RIGHT),
        0.75,
        _NO_SUM + "the cue word decides",
        group=1,
        check=_code,
        words=("passport", "travel"),
        digits=3,
        version="2",
    ),
    Recognizer(
        "uk_driver_number",
        "DRIVER_LICENSE",
        compiled(LEFT + r"[A-Z]{1,5}9{0,4}[0-9][0156][0-9][0-3][0-9]{2}[A-Z][A-Z9][0-9A-Z]{3}" + RIGHT, False),
        0.9,
        "no public checksum; five signs of the name and a possible date of birth (DVLA)",
        check=lambda found: _uk_driver(found) if len(found.value) == 16 else 0.0,
        digits=6,
    ),
    Recognizer(
        "licence_cue",
        "DRIVER_LICENSE",
        compiled(
            KEY
            + r"(?:driv(?:er|ing)(?:'?s)?[ _-]?licen[cs]e|dl|licen[cs]e(?=[ _-]?(?:no|num|id|#)))"
            + FILLER
            + r"#?([A-Z]{0,5}-?[0-9][0-9A-Z]{2,18}(?:-[0-9A-Z]{1,10}){0,4})"
            + RIGHT
        ),
        0.7,
        _NO_SUM + "the cue word decides",
        group=1,
        check=_code,
        words=("licen", "dl"),
        digits=3,
        version="2",
    ),
    Recognizer(
        "plate_cue",
        "LICENSE_PLATE",
        compiled(
            KEY + r"(?:(?:licen[cs]e|number|registration|vehicle|car)[ _-]?(?:plate|registration|reg)|plate|vrn"
            r"|reg(?:istration)?[ _-]?no)"
            + FILLER
            + r"((?-i:(?=[0-9A-Z -]{0,9}[0-9])[0-9A-Z]{1,4}(?:[ -]?[0-9A-Z]{1,4}){0,2}))"
            + RIGHT
        ),
        0.7,
        _NO_SUM + "the cue word decides, and letters stand beside digits",
        group=1,
        check=_plate,
        words=("plate", "vrn", "reg"),
        digits=1,
    ),
    Recognizer(
        "nhs_number",
        "NHS_NUMBER",
        compiled(
            KEY + r"(?:nhs|patient|health|medical|surgery|hospital|gp)(?:[^0-9\n\ue000]"
            r"|(?<=[^0-9])[0-9]{1,3}(?=[^0-9])){0,48}?"
            r"(?<![0-9A-Za-z.])([0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{4})(?![0-9A-Za-z]|[.-][0-9])"
        ),
        0.95,
        "mod 11 (weights 10 to 2), and a cue, because one in eleven numbers passes",
        group=1,
        check=_nhs,
        words=("nhs", "patient", "health", "medical", "surgery", "hospital", "gp"),
        digits=10,
    ),
    Recognizer(
        "us_npi",
        "US_NPI",
        compiled(KEY + r"(?:npi|provider|prescriber|physician)[^0-9\n\ue000]{0,24}([12][0-9]{9})" + RIGHT),
        0.95,
        "Luhn with the prefix 80840, and a cue",
        group=1,
        check=_npi,
        words=("npi", "provider", "prescriber", "physician"),
        digits=10,
    ),
    Recognizer(
        "medical_record_cue",
        "MEDICAL_RECORD_NUMBER",
        compiled(
            KEY + r"(?:mrn|medical[ _-]?record|chart[ _-]?(?:no|num|id)|patient[ _-]?(?:id|no|num)"
            r"|hospital[ _-]?(?:id|no|num)"
            r"|health[ _-]?(?:plan|insurance)[ _-]?(?:id|no|num)|medicare|medicaid|病历号?|就诊卡号?|住院号|医保卡?号?)"
            + FILLER
            + r"#?([0-9A-Z]{0,6}-?[0-9][0-9A-Z]{2,16}(?:-[0-9A-Z]{1,10}){0,3})"
            + RIGHT
        ),
        0.75,
        _NO_SUM + "the cue word decides",
        group=1,
        check=_code,
        words=(
            "mrn",
            "medical",
            "chart",
            "patient",
            "hospital",
            "health",
            "medicare",
            "medicaid",
            "病历",
            "就诊",
            "住院",
            "医保",
        ),
        digits=3,
    ),
)
