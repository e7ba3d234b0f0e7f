"""The closed list of entity types: what a detector may report, a policy may treat and a placeholder may name.

Guarantee: loads nothing, so that a policy is checked without the recognizers.
"""

from __future__ import annotations

from typing import Final

# Our recognizers' types, those of the language model (PERSON, LOCATION) and of Presidio's own rules (CRYPTO, US_ITIN).
_TYPES = """
    ACCOUNT_NUMBER ADDRESS AGE CN_BANK_CARD CN_LICENSE_PLATE CN_RESIDENT_ID CN_USCC CREDIT_CARD CRYPTO CUSTOMER_NUMBER
    DATE_OF_BIRTH DATE_TIME DRIVER_LICENSE EMAIL_ADDRESS GPS_LOCATION IBAN IMEI IP_ADDRESS LICENSE_PLATE LOCATION
    MAC_ADDRESS MEDICAL_RECORD_NUMBER NHS_NUMBER NRP ORDER_NUMBER ORGANIZATION PASSPORT_NUMBER PASSWORD PERSON
    PERSONAL_DATA PHONE_NUMBER SECRET URL USERNAME US_ITIN US_NPI US_SSN
"""
ENTITY_TYPES: Final[frozenset[str]] = frozenset(_TYPES.split())

# What a surrogate can be made for, and what has a date to move; `privacy.surrogate` holds to the first.
_SURROGATES = """
    ACCOUNT_NUMBER ADDRESS CN_BANK_CARD CN_RESIDENT_ID CN_USCC CREDIT_CARD CUSTOMER_NUMBER DRIVER_LICENSE
    EMAIL_ADDRESS IBAN IMEI IP_ADDRESS LOCATION MAC_ADDRESS MEDICAL_RECORD_NUMBER NHS_NUMBER ORDER_NUMBER
    PASSPORT_NUMBER PERSON PHONE_NUMBER USERNAME US_ITIN US_NPI US_SSN
"""
SURROGATE_TYPES: Final[frozenset[str]] = frozenset(_SURROGATES.split())
DATE_TYPES: Final[frozenset[str]] = frozenset({"DATE_OF_BIRTH", "DATE_TIME"})
