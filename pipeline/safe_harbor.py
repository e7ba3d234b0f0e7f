"""The 18 identifiers of HIPAA's Safe Harbor (45 CFR 164.514(b)(2)(i)), and Privet's types that find them.

Not covered: whether nothing else could identify a person (164.514(b)(2)(ii)); that is for people to judge. The differential
privacy claim stands beside this table and does not rest on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pipeline.report_words import NOTHING, Words


@dataclass(frozen=True, slots=True)
class Identifier:
    """types: of `privacy.entities.ENTITY_TYPES`; none: Privet looks for nothing of it."""

    letter: str
    name: Words
    types: tuple[str, ...]
    note: Words = NOTHING


_BY_NUMBER = Words("found by form and cue", "按格式与上下文线索识别")
_NO_IMAGE = Words("pictures and signals are not searched", "不检索图片与信号")
IDENTIFIERS: Final[tuple[Identifier, ...]] = (
    Identifier("A", Words("names", "姓名"), ("PERSON",)),
    Identifier("B", Words("places smaller than a state", "小于州一级的地理区域"), ("ADDRESS", "LOCATION", "GPS_LOCATION"),
               Words("the rule allows the first three digits of most ZIP codes; Privet treats the whole", "规则允许保留多数邮编前三位；Privet 整体处理")),
    Identifier("C", Words("dates of a person, and ages over 89", "与个人相关的日期，以及 89 岁以上的年龄"), ("DATE_OF_BIRTH", "DATE_TIME", "AGE"),
               Words("date_shift moves dates and keeps the day; the rule allows the year alone",
                     "date_shift 会移动日期但仍保留到日；规则只允许保留年份")),
    Identifier("D", Words("telephone numbers", "电话号码"), ("PHONE_NUMBER",)),
    Identifier("E", Words("fax numbers", "传真号码"), ("PHONE_NUMBER",), Words("found as telephone numbers", "按电话号码识别")),
    Identifier("F", Words("email addresses", "电子邮件地址"), ("EMAIL_ADDRESS",)),
    Identifier("G", Words("social security numbers", "社会安全号码"), ("US_SSN", "US_ITIN")),
    Identifier("H", Words("medical record numbers", "病历号"), ("MEDICAL_RECORD_NUMBER", "NHS_NUMBER"), _BY_NUMBER),
    Identifier("I", Words("health plan beneficiary numbers", "医保受益人编号"), ("CUSTOMER_NUMBER",), _BY_NUMBER),
    Identifier("J", Words("account numbers", "账号"), ("ACCOUNT_NUMBER", "IBAN", "CREDIT_CARD", "CN_BANK_CARD", "CUSTOMER_NUMBER", "ORDER_NUMBER")),
    Identifier("K", Words("certificate and licence numbers", "证书与执照号码"), ("DRIVER_LICENSE", "PASSPORT_NUMBER", "US_NPI", "CN_RESIDENT_ID")),
    Identifier("L", Words("vehicle identifiers and plates", "车辆标识与车牌"), ("LICENSE_PLATE", "CN_LICENSE_PLATE"),
               Words("chassis numbers (VIN) have no type of their own", "车架号（VIN）没有单独的类型")),
    Identifier("M", Words("device identifiers and serial numbers", "设备标识与序列号"), ("IMEI", "MAC_ADDRESS")),
    Identifier("N", Words("web addresses", "网址"), ("URL",)),
    Identifier("O", Words("IP addresses", "IP 地址"), ("IP_ADDRESS",)),
    Identifier("P", Words("biometric identifiers", "生物识别标识"), (), _NO_IMAGE),
    Identifier("Q", Words("full-face photographs", "全脸照片"), (), _NO_IMAGE),
    Identifier("R", Words("any other unique number or code", "任何其他唯一编号或代码"), ("USERNAME", "SECRET", "PASSWORD", "PERSONAL_DATA", "CRYPTO"),
               Words("own patterns and sealed lists of the policy add to it", "策略的自有模式与密封清单可补充")),
)  # fmt: skip
