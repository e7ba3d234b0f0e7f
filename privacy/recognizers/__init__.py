"""Every recognizer of Privet, in one tuple; pure Python, no model, the same on every machine.

Guarantee: the residual scan and output redaction run this registry, so they look for exactly what de-identification
looked for.
"""

from __future__ import annotations

from privacy.recognizers.cn import CHINESE
from privacy.recognizers.identifiers import IDENTIFIERS
from privacy.recognizers.network import NETWORK
from privacy.recognizers.numbers import NUMBERS
from privacy.recognizers.people import PEOPLE
from privacy.recognizers.secrets import SECRETS
from privacy.recognizers.spec import Recognizer

RECOGNIZERS: tuple[Recognizer, ...] = (*IDENTIFIERS, *NUMBERS, *SECRETS, *NETWORK, *PEOPLE, *CHINESE)
