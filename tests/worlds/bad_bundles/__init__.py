"""Bad bundles, one per way to cheat, each named after it, with the exit code and the error code that must answer.

OUTSIDERS: somebody without keys changes a good bundle (and may write a new list of files over what they did).
INSIDERS: the pipeline or a signer lies; every signature is real, so only recomputing and the gate rules can tell.
LISTS: the bundle is honest, and the list of revoked releases given beside it says otherwise, or is none.
"""

from tests.worlds.bad_bundles.cases import STRANGER, Insider, Outsider, envelope, honest_votes, put, relist
from tests.worlds.bad_bundles.doctored import DOCTORED
from tests.worlds.bad_bundles.insiders import INSIDERS as LIARS
from tests.worlds.bad_bundles.lists import LISTS, RevocationCase
from tests.worlds.bad_bundles.outsiders import OUTSIDERS

INSIDERS = (*LIARS, *DOCTORED)

__all__ = [
    "INSIDERS",
    "LISTS",
    "OUTSIDERS",
    "STRANGER",
    "Insider",
    "Outsider",
    "RevocationCase",
    "envelope",
    "honest_votes",
    "put",
    "relist",
]
