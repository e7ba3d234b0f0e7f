"""The redactors of a policy, for whole texts and for streams, and the digest by which a release names them.

Guarantee: both look for the same: every pattern at any score, the policy's own patterns, and listed secrets; what the policy's
surrogates and moved dates wrote stays. The digest changes with the code, with any recognizer, and with what the policy says of
personal data and outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from privacy.canonical import Digest, digest_of
from privacy.redact import OutputRedactor
from privacy.redact_stream import StreamRedactor

if TYPE_CHECKING:
    from privacy.detect import Detector
    from privacy.policy import Policy


def output_redactor(policy: Policy, secrets: Sequence[str] = (), detector: Detector | None = None) -> OutputRedactor:
    """For whole texts. detector: instead of the patterns, e.g. one with models."""
    from pipeline.treatment import output_detector, own_spans_of

    return OutputRedactor(detector or output_detector(policy), secrets, own_spans_of(policy))


def stream_redactors(
    policy: Policy, secrets: Sequence[str] = (), detector: Detector | None = None, *, sentences: bool | None = None
) -> Callable[[], StreamRedactor]:
    """Makes one redactor a stream; all share the detector, which is not compiled in the middle of one."""
    from pipeline.treatment import output_detector, own_spans_of

    shared, own = detector or output_detector(policy, engine="python"), own_spans_of(policy)
    hold_back = policy.outputs.hold_back
    return lambda: StreamRedactor(shared, secrets, own, hold_back=hold_back, sentences=sentences)


def redactor_digest(policy: Policy, detector: Detector | None = None) -> Digest:
    """Of all that decides what is removed, listed secrets aside."""
    from pipeline.stage import CODE_VERSION
    from pipeline.treatment import output_detector

    said = policy.model_dump(mode="json")
    version = (detector or output_detector(policy)).version  # names, versions and patterns of the recognizers, and the models
    return digest_of(
        {
            "code": CODE_VERSION,
            "recognizers": version,
            "dataset": said["dataset"],
            "pii": said["pii"],
            "outputs": said["outputs"],
        }
    )
