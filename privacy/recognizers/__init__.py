"""Every recognizer of Privet, in one tuple; pure Python, no model, the same on every machine.

Guarantee: the residual scan and output redaction run this registry, so they look for exactly what de-identification
looked for.
"""

from __future__ import annotations

from privacy.recognizers.accounts import ACCOUNTS
from privacy.recognizers.addresses import ADDRESSES
from privacy.recognizers.calls import CALLS
from privacy.recognizers.cards import CARDS
from privacy.recognizers.cn import CHINESE
from privacy.recognizers.documents import DOCUMENTS
from privacy.recognizers.fields import FIELDS
from privacy.recognizers.identifiers import IDENTIFIERS
from privacy.recognizers.moments import MOMENTS
from privacy.recognizers.network import NETWORK
from privacy.recognizers.numbers import NUMBERS
from privacy.recognizers.people import PEOPLE
from privacy.recognizers.phones import PHONES
from privacy.recognizers.places import PLACES
from privacy.recognizers.secrets import SECRETS
from privacy.recognizers.spec import Recognizer
from privacy.recognizers.tokens import TOKENS

RECOGNIZERS: tuple[Recognizer, ...] = (
    *IDENTIFIERS,
    *CARDS,
    *PHONES,
    *CALLS,
    *DOCUMENTS,
    *NUMBERS,
    *TOKENS,
    *SECRETS,
    *NETWORK,
    *ACCOUNTS,
    *PLACES,
    *PEOPLE,
    *ADDRESSES,
    *MOMENTS,
    *CHINESE,
    *FIELDS,
)
