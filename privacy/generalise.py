"""Coarser values: month of a date, ten-year band of an age, network of an address, tenth of a degree, region of an address.

Guarantee: what is shown is one of a small closed set per type (a month, a band, a /24 or /48, a tenth of a degree, an ISO 3166
region code); empty when the value can't be read, so nothing of an unknown form gets through.
Not covered: a rare combination of coarse values may still single out a person; that is for k-anonymity, not for this.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata

from privacy.recognizers.view import word_set

_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
MONTHS = {m: i for i, m in enumerate(_MONTH_NAMES, start=1)}
_US_STATES = word_set(
    "AL AK AZ AR CA CO CT DE FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC ND OH OK OR PA RI SC SD"
    " TN TX UT VT VA WA WV WI WY DC"
)
_US_STATE = re.compile(r"(?<![A-Za-z])([A-Z]{2})\.?,?\s{1,3}[0-9]{5}(?:-[0-9]{4})?(?![0-9])")
_GB_POSTCODE = re.compile(r"(?<![A-Za-z0-9])([A-Z]{1,2})[0-9][0-9A-Z]? ?[0-9][A-Z]{2}(?![A-Za-z0-9])", re.IGNORECASE)
_CA_POSTCODE = re.compile(r"(?<![A-Za-z0-9])([A-Z])[0-9][A-Z][ -]?[0-9][A-Z][0-9](?![A-Za-z0-9])", re.IGNORECASE)
_CA_PROVINCES = {
    "A": "NL", "B": "NS", "C": "PE", "E": "NB", "G": "QC", "H": "QC", "J": "QC", "K": "ON", "L": "ON", "M": "ON",
    "N": "ON", "P": "ON", "R": "MB", "S": "SK", "T": "AB", "V": "BC", "Y": "YT",
}  # fmt: skip
_CN_PROVINCES = {
    "北京": "BJ", "天津": "TJ", "河北": "HE", "山西": "SX", "内蒙古": "NM", "辽宁": "LN", "吉林": "JL",
    "黑龙江": "HL", "上海": "SH", "江苏": "JS", "浙江": "ZJ", "安徽": "AH", "福建": "FJ", "江西": "JX",
    "山东": "SD", "河南": "HA", "湖北": "HB", "湖南": "HN", "广东": "GD", "广西": "GX", "海南": "HI",
    "重庆": "CQ", "四川": "SC", "贵州": "GZ", "云南": "YN", "西藏": "XZ", "陕西": "SN", "甘肃": "GS",
    "青海": "QH", "宁夏": "NX", "新疆": "XJ", "香港": "HK", "澳门": "MO", "台湾": "TW",
}  # fmt: skip
_DEGREES = re.compile(r"([+-]?[0-9]{1,3}(?:\.[0-9]{1,20})?)\s{0,3}°?\s{0,3}([NSEW]?)", re.IGNORECASE)


def general(entity: str, value: str) -> str:
    """The coarse form of `value`, or an empty string."""
    text = unicodedata.normalize("NFKC", value).strip()
    match entity:
        case "DATE_OF_BIRTH" | "DATE_TIME":
            return month(text)
        case "IP_ADDRESS":
            return network(text)
        case "AGE":
            return band(text)
        case "GPS_LOCATION":
            return tenth_of_degree(text)
        case "ADDRESS" | "LOCATION":
            return region(text)
    return ""


def band(text: str) -> str:
    found = re.search(r"[0-9]{1,3}", text)
    if found is None:
        return ""
    low = min(int(found.group()) // 10 * 10, 90)
    return f"{low}-{low + 9}" if low < 90 else "90-130"


def network(text: str) -> str:
    try:
        address = ipaddress.ip_address(text.split("%")[0])
    except ValueError:
        return ""
    return str(ipaddress.ip_network(f"{address}/{24 if address.version == 4 else 48}", strict=False))


def month(text: str) -> str:
    """Year and month; the year alone where day and month can't be told apart."""
    year = re.search(r"(?<![0-9])(?:18|19|20)[0-9]{2}(?![0-9])", text) or re.match(r"(?:18|19|20)[0-9]{2}(?=[0-9]{4}$)", text)
    if year is None:
        return ""
    word = re.search(r"[A-Za-z]{3}", text)
    if word and word.group().lower() in MONTHS:
        return f"{year.group()}-{MONTHS[word.group().lower()]:02d}"
    iso = re.match(r"[0-9]{4}[-/.年]?([0-9]{1,2})[-/.月]?", text) if text.startswith(year.group()) else None
    if iso and 1 <= int(iso.group(1)) <= 12:
        return f"{year.group()}-{int(iso.group(1)):02d}"
    return year.group()


def tenth_of_degree(text: str) -> str:
    """`lat,lon` to 0.1 degree (about 11 km); empty unless exactly two decimal degrees in range are there."""
    found = _DEGREES.findall(text)
    if len(found) != 2:
        return ""
    values = [-abs(float(number)) if side.upper() in ("S", "W") and side else float(number) for number, side in found]
    if abs(values[0]) > 90 or abs(values[1]) > 180:
        return ""
    return ",".join(f"{round(value, 1) + 0.0:.1f}" for value in values)


def region(text: str) -> str:
    """ISO 3166-2 code of the state or province that a postcode or a Chinese address names; for Britain the postcode area."""
    if state := _US_STATE.search(text):
        return f"US-{state.group(1)}" if state.group(1) in _US_STATES else ""
    if area := _GB_POSTCODE.search(text):
        return f"GB-{area.group(1).upper()}"
    if province := _CA_POSTCODE.search(text):
        code = _CA_PROVINCES.get(province.group(1).upper())
        return f"CA-{code}" if code else ""
    named = [(text.find(name), code) for name, code in _CN_PROVINCES.items() if name in text]
    return f"CN-{min(named)[1]}" if named else ""
