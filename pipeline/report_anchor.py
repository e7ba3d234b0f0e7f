"""The last section of a report: how to check it offline, and the journal's checkpoint, which makes each copy an anchor.

Guarantee: the checkpoint is the newest one at the time of the page, verified before it is shown.
"""

from __future__ import annotations

from pipeline.report_page import Figure, Section
from privacy.journal import Journal

_TEXT = (
    "The bundle that holds this page can be checked on any machine, without a network and without the pipeline. "
    "The check recomputes every digest and signature, and epsilon from the mechanism trace. "
    "Get the trust root from the controller, not from the bundle.",
    "The journal's checkpoint was signed when this page was made. Whoever keeps the page can show later, with the second "
    "command, that no entry under it was changed or left out since. The last block is the checkpoint itself, in a public "
    "format (c2sp.org/tlog-checkpoint).",
)


def how_to_verify(journal: Journal) -> Section:
    point = journal.checkpoint()
    at = journal.entries()[point.size - 1].at if point.size else "no entry"
    figures = (
        Figure("checkpoint of the journal: entries under it", f"{point.size:,}", "measured"),
        Figure("checkpoint of the journal: root", point.root_digest, "measured"),
        Figure("checkpoint of the journal: time of its newest entry", at, "measured"),
    )
    anchor = f"privet journal verify --anchor {point.size}:{point.root_digest}"
    commands = ("privet verify BUNDLE --trust trust.json", anchor, point.note)
    return Section("verify", "How to verify this offline", _TEXT, figures, commands=commands)
