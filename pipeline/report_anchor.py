"""Section 8 of the report: how to check it offline, and the journal's checkpoint, which makes each copy an anchor.

Guarantee: the checkpoint is the newest one at the time of the page, verified before it is shown.
"""

from __future__ import annotations

from pipeline.report_facts import measured
from pipeline.report_page import Section
from pipeline.report_words import say
from privacy.canonical import Digest
from privacy.journal import Journal


def how_to_verify(journal: Journal, pipeline_key: str = "") -> Section:
    """pipeline_key: of whoever signs the statements, as people compare it with their trust root."""
    point = journal.checkpoint()
    source: Digest | None = None
    at = journal.entries()[point.size - 1].at if point.size else say("no entry")
    figures = [
        measured("checkpoint_size", say("checkpoint of the journal: entries under it"), point.size, source),
        measured("checkpoint_root", say("checkpoint of the journal: root"), point.root_digest, source),
        measured("checkpoint_time", say("checkpoint of the journal: time of its newest entry"), at, source),
    ]
    if pipeline_key:
        figures.append(measured("pipeline_key", say("public key of the pipeline"), pipeline_key))
    anchor = f"privet journal verify --anchor {point.size}:{point.root_digest}"
    commands = ("privet verify BUNDLE --trust trust.json", anchor, point.note)
    text = (
        say(
            "The bundle that holds this page can be checked on any machine, without a network and without the pipeline. "
            "The check recomputes every digest and signature, and epsilon from the mechanism trace. "
            "Get the trust root from the controller, not from the bundle."
        ),
        say(
            "The journal's checkpoint was signed when this page was made. Whoever keeps the page can show later, with the "
            "second command, that no entry under it was changed or left out since. The last block is the checkpoint itself, "
            "in a public format (c2sp.org/tlog-checkpoint)."
        ),
    )
    return Section("verify", say("How to verify this offline"), text, tuple(figures), commands=commands)
